"""Reads the objects of a bucket, with one connection per thread. A client library would also sign each request."""
import http.client
import threading
import urllib.parse
import xml.etree.ElementTree

NAMESPACE = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}


class Bucket:
    """`url`: a bucket and a prefix in it, such as http://127.0.0.1:9000/bucket/photos."""

    def __init__(self, url):
        place = urllib.parse.urlsplit(url)
        self.host, (_, self.bucket, self.prefix) = place.netloc, place.path.split("/", 2)
        self.thread = threading.local()

    def request(self, target):
        if not hasattr(self.thread, "connection"):
            self.thread.connection = http.client.HTTPConnection(self.host)
        self.thread.connection.request("GET", target)
        answer = self.thread.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"{target}: {answer.status} {answer.reason}")
        return body

    def names(self):
        """The names of all objects below the prefix."""
        names, query = [], {"list-type": "2", "prefix": f"{self.prefix}/"}
        while True:
            page = xml.etree.ElementTree.fromstring(self.request(f"/{self.bucket}?{urllib.parse.urlencode(query)}"))
            names += [key.text[len(self.prefix) + 1 :] for key in page.iterfind("s3:Contents/s3:Key", NAMESPACE)]
            query["continuation-token"] = page.findtext("s3:NextContinuationToken", None, NAMESPACE)
            if query["continuation-token"] is None:
                return names

    def get(self, name):
        return self.request(f"/{self.bucket}/{self.prefix}/{urllib.parse.quote(name)}")
