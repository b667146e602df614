"""`python -m cluster.s3 FOLDER --port N`: localbucket, an S3 service on a folder, answering at once.

It sends headers and body apart. Without this a small body waits until the client has acknowledged the headers, for
which Linux takes 40 ms: 45 ms for each small object, and 1 ms with it.
"""

import localbucket

localbucket.S3Handler.disable_nagle_algorithm = True

if __name__ == "__main__":
    localbucket.main()
