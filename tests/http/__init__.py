"""The history over HTTP: real clients, real sockets, and the application called in process."""
