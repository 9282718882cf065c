#!/usr/bin/env python3
"""A stand-in for an S3 bucket with the files of a folder, for compare.py: each answer takes at least a given latency.

It answers ListObjectsV2 with continuation tokens, GET with ranges, and HEAD, on 127.0.0.1 and without checking signatures. The bucket is
called `bench`, and its keys begin with `photos/`. Files are read into memory first, and requests are parsed with few steps, because the
server shares the cores with the program that is measured.

usage: bucket_server.py FOLDER [MILLISECONDS]      prints its URL, and ends with its standard input
"""
import email.utils
import hashlib
import pathlib
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
import xml.sax.saxutils

BUCKET, PREFIX, PAGE = "bench", "photos/", 1000


class Bucket:
    def __init__(self, folder):
        files = sorted(file for file in pathlib.Path(folder).iterdir() if file.is_file())
        self.objects = {PREFIX + file.name: file.read_bytes() for file in files}
        self.etags = {key: f'"{hashlib.md5(data).hexdigest()}"' for key, data in self.objects.items()}
        self.keys = sorted(self.objects)
        self.modified = time.time()

    def answer(self, method, target, ranged):
        """The status, the headers and the body of an answer. The headers of HEAD and GET are the same."""
        path, _, query = target.partition("?")
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        if bucket != BUCKET or method not in ("GET", "HEAD"):
            return fault("404 Not Found", "NoSuchBucket") if bucket != BUCKET else fault("501 Not Implemented", "NotImplemented")
        if not key:
            return "200 OK", ["Content-Type: application/xml"], self.page(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))
        data = self.objects.get(key)
        if data is None:
            return fault("404 Not Found", "NoSuchKey")
        headers = [
            f"ETag: {self.etags[key]}",
            f"Last-Modified: {email.utils.formatdate(self.modified, usegmt=True)}",
            "Accept-Ranges: bytes",
            "Content-Type: binary/octet-stream",
        ]
        if not ranged:
            return "200 OK", headers, data
        first, last = ranged
        if first is None:
            first, last = max(len(data) - last, 0), len(data) - 1
        last = len(data) - 1 if last is None else min(last, len(data) - 1)
        if first > last:
            return fault("416 Range Not Satisfiable", "InvalidRange")
        return "206 Partial Content", [*headers, f"Content-Range: bytes {first}-{last}/{len(data)}"], data[first : last + 1]

    def page(self, query):
        """A page of ListObjectsV2. A continuation token is the last key of the page before it."""
        prefix, after = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        size = min(int(query.get("max-keys") or PAGE), PAGE)
        found = [key for key in self.keys if key.startswith(prefix) and key > after]
        delimiter, folders, objects = query.get("delimiter"), [], []
        shown, is_cut, last = 0, False, ""
        for key in found:
            rest = key[len(prefix) :]
            folder = prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
            if folder and folders and folders[-1] == folder:
                last = key
                continue
            if shown == size:
                is_cut = True
                break
            shown, last = shown + 1, key
            folders.append(folder) if folder else objects.append(key)
        text = xml.sax.saxutils.escape
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.modified))
        entries = [
            f"<Contents><Key>{text(key)}</Key><LastModified>{date}</LastModified><ETag>{text(self.etags[key])}</ETag>"
            f"<Size>{len(self.objects[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in objects
        ]
        entries += [f"<CommonPrefixes><Prefix>{text(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        token = f"<NextContinuationToken>{text(last)}</NextContinuationToken>" if is_cut else ""
        page = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{text(prefix)}</Prefix><KeyCount>{shown}</KeyCount><MaxKeys>{size}</MaxKeys>"
            f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}{''.join(entries)}</ListBucketResult>"
        )
        return page.encode()


def fault(status, code):
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return status, ["Content-Type: application/xml"], body.encode()


RANGE = re.compile(rb"\r\nrange: *bytes=(\d*)-(\d*)", re.IGNORECASE)


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pending = b""
        while True:
            # No request that is answered has a body.
            while b"\r\n\r\n" not in pending:
                read = self.request.recv(65536)
                if not read:
                    return
                pending += read
            head, _, pending = pending.partition(b"\r\n\r\n")
            method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
            ranged = RANGE.search(head)
            ranged = ranged and tuple(int(number) if number else None for number in ranged.groups())
            time.sleep(self.server.latency)
            status, headers, body = self.server.bucket.answer(method, target, ranged)
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "x-amz-request-id: 0", *headers]
            self.request.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 256

    def handle_error(self, request, client_address):
        """Ignores the error of a client that has ended."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    server = Server(("127.0.0.1", 0), Connection)
    server.bucket = Bucket(sys.argv[1])
    server.latency = float(sys.argv[2] if len(sys.argv) > 2 else 20) / 1000
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
