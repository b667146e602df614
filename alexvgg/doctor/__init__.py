"""`alexvgg doctor`: what must work before anything is submitted, tried one thing after the other."""
