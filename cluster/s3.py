"""`python -m cluster.s3 FOLDER --port N`: localbucket, an S3 service on a folder, answering at once.

It sends headers and body apart. Without `disable_nagle_algorithm` a small body waits until the client has acknowledged
the headers, for which Linux takes 40 ms: 45 ms for each small object, and 1 ms with it. And it lets five connections
wait to be accepted; a sixth client, one of a node's read threads, would try again after a second.
"""

from http.server import ThreadingHTTPServer

import localbucket


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


localbucket.S3Handler.disable_nagle_algorithm = True
localbucket.ThreadingHTTPServer = Server

if __name__ == "__main__":
    localbucket.main()
