"""A Hugging Face Hub on loopback: the part of its protocol that the real client uses.

Models, and datasets that are there already: create, validate-yaml, preupload, LFS batch, upload and
verify, commit, info, tree, resolve with ETag and redirect, private repositories and tokens. Faults
can be ordered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

WRITE_TOKEN = "hf_" + "W" * 34
LFS_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".png", ".pt", ".onnx")


@dataclass
class Commit:
    """One state of a repository."""

    sha: str
    files: dict[str, bytes]
    message: str


@dataclass
class Repository:
    """A model repository: its commits, oldest first."""

    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    heads: dict[str, Commit] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch or of a sha."""
        by_sha = {commit.sha: commit for commit in self.commits}
        return self.heads.get(revision) or by_sha.get(revision)

    def add(self, files: dict[str, bytes], message: str, branch: str = "main") -> Commit:
        """Appends a commit."""
        text = json.dumps([len(self.commits), message, sorted(files)]).encode()
        commit = Commit(hashlib.sha1(text).hexdigest(), files, message)
        self.commits.append(commit)
        self.heads[branch] = commit
        return commit


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    kind: str  # "401", "404", "500", "cut", "slow"
    path: str  # regular expression
    method: str = ""
    times: int = 1
    seconds: float = 5.0


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HubServer(ThreadingHTTPServer):
    """The server and all that it holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens = {WRITE_TOKEN: "someone"}
        self.received: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        """Its address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage_url(self) -> str:
        """Where large files are: another host, as with the Hub, so that no token goes there."""
        return f"http://localhost:{self.server_port}/storage"

    @property
    def downloaded(self) -> set[str]:
        """Names of the files that were asked for."""
        return {r.path.rsplit("/", 1)[-1] for r in self.received if "/resolve/" in r.path}

    def order(self, kind: str, path: str, **options: object) -> None:
        """Orders a fault."""
        self.faults.append(Fault(kind, path, **options))

    def publish(self, repo_id: str, files: dict[str, bytes], private: bool = False) -> Commit:
        """Puts a repository there as if somebody had pushed it."""
        repository = self.repositories.setdefault(repo_id, Repository(private))
        for content in files.values():
            self.objects[hashlib.sha256(content).hexdigest()] = content
        return repository.add(files, "published")

    def start(self) -> HubServer:
        """Serves in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends it."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Cut(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, *args: object) -> None:
        pass

    def _serve(self) -> None:
        fault = self._fault()
        try:
            body = self._body(fault)
        except (_Cut, ConnectionError):
            self.close_connection = True
            self.connection.close()
            return
        with self.server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.server.received.append(Request(self.command, self.path, headers, body))
        if fault is not None and fault.kind == "slow":
            threading.Event().wait(fault.seconds)  # tests replace time.sleep
        if fault is not None and fault.kind == "cut":
            self.close_connection = True
            self.connection.close()
        elif fault is not None and fault.kind.isdigit():
            self._error(int(fault.kind), "", f"ordered fault {fault.kind}")
        else:
            self._route(body)

    def _fault(self) -> Fault | None:
        with self.server.lock:
            for fault in self.server.faults:
                is_method = fault.method in ("", self.command)
                if fault.times > 0 and is_method and re.search(fault.path, self.path):
                    fault.times -= 1
                    return fault
        return None

    def _body(self, fault: Fault | None) -> bytes:
        """Reads the body; cut: half of it."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.kind == "cut" and length:
            self.rfile.read(length // 2)
            raise _Cut
        return self.rfile.read(length)

    @property
    def _user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return self.server.tokens.get(token)

    def _route(self, body: bytes) -> None:
        path = unquote(urlparse(self.path).path)
        token_is_wrong = "Authorization" in self.headers and self._user is None
        if token_is_wrong and not path.startswith("/storage/"):
            self._error(401, "", "Invalid credentials in Authorization header")
            return
        with self.server.lock:
            for pattern, method, answer in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    answer(self, body, *match.groups())
                    return
        self._error(404, "RepoNotFound", f"no such address {path}")

    def _send(
        self, content: bytes, headers: dict[str, str] | None = None, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self._send(json.dumps({"error": message}).encode(), headers, status)

    def _repository(self, repo_id: str) -> Repository | None:
        """The repository, or None after the answer that it cannot be seen."""
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.private and self._user is None):
            # As the Hub: who is not logged in is not told whether it exists.
            status = 404 if self._user else 401
            message = "Repository not found" if self._user else "Invalid username or password."
            self._error(status, "RepoNotFound", message)
            return None
        return repository

    def _commit_of(self, repo_id: str, revision: str) -> Commit | None:
        repository = self._repository(repo_id)
        if repository is None:
            return None
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def whoami(self, body: bytes) -> None:
        if self._user is None:
            self._error(401, "", "Invalid username or password.")
            return
        self._json({"type": "user", "name": self._user, "orgs": []})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        owner = wanted.get("organization") or self._user
        if self._user is None or owner != self._user:
            status = 401 if self._user is None else 403
            self._error(status, "", "You don't have the rights to create a model here")
            return
        repo_id = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.server.url}/{repo_id}", "name": repo_id}
        if repo_id in self.server.repositories:
            self._json({**answer, "error": "You already created this model repo"}, 409)
            return
        is_private = wanted.get("private") or wanted.get("visibility") == "private"
        repository = Repository(bool(is_private))
        repository.add({".gitattributes": b"*.ckpt filter=lfs\n"}, "initial commit")
        self.server.repositories[repo_id] = repository
        self._json(answer)

    def create_branch(self, body: bytes, repo_id: str, name: str) -> None:
        repository = self._repository(repo_id)
        if repository is None or not self._may_write():
            return
        if name in repository.heads:
            self._error(409, "", f"Reference already exists: {name}")
            return
        repository.heads[name] = repository.heads["main"]
        self._json({})

    def validate_yaml(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        commit = self._commit_of(repo_id, revision)
        if commit is None or not self._may_write():
            return
        files = []
        for wanted in json.loads(body)["files"]:
            path = wanted["path"]
            is_large = path.endswith(LFS_SUFFIXES)
            entry = {"path": path, "shouldIgnore": False}
            entry["uploadMode"] = "lfs" if is_large else "regular"
            if path in commit.files:
                entry["oid"] = _oid(path, commit.files[path])
            files.append(entry)
        self._json({"files": files})

    def _may_write(self) -> bool:
        if self._user is None:
            self._error(401, "", "Invalid username or password.")
        return self._user is not None

    def lfs_batch(self, body: bytes, repo_id: str) -> None:
        if self._repository(repo_id) is None or not self._may_write():
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.objects:
                address = f"{self.server.storage_url}/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": address}}
                entry["actions"]["verify"] = {"href": f"{self.server.url}/verify"}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._error(400, "", "the content is not that of its sha256")
            return
        self.server.objects[oid] = body
        self._send(b"")

    def fetch_object(self, body: bytes, oid: str) -> None:
        self._send_range(self.server.objects[oid], {"ETag": f'"{oid}"'})

    def verify(self, body: bytes) -> None:
        wanted = json.loads(body)
        found = self.server.objects.get(wanted["oid"])
        if found is None or len(found) != wanted["size"]:
            self._error(404, "", "no such object")
            return
        self._json({})

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        repository = self._repository(repo_id)
        if repository is None or not self._may_write():
            return
        files, message = dict(repository.heads[revision].files), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    self._error(400, "", f"{value['path']}: its object was not uploaded")
                    return
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.add(files, message, revision)
        address = f"{self.server.url}/{repo_id}/commit/{commit.sha}"
        self._json({"success": True, "commitOid": commit.sha, "commitUrl": address})

    def info(self, body: bytes, repo_id: str, revision: str | None = None) -> None:
        commit = self._commit_of(repo_id, revision or "main")
        if commit is not None:
            siblings = [{"rfilename": name} for name in sorted(commit.files)]
            private = self.server.repositories[repo_id].private
            self._json({"id": repo_id, "sha": commit.sha, "private": private, "siblings": siblings})

    def tree(self, body: bytes, repo_id: str, revision: str, folder: str | None = None) -> None:
        commit = self._commit_of(repo_id, revision)
        if commit is None:
            return
        is_flat = parse_qs(urlparse(self.path).query).get("recursive") == ["false"]
        entries, folders = [], set()
        for name, content in sorted(commit.files.items()):
            if not name.startswith(f"{folder}/" if folder else ""):
                continue
            below, _, rest = name[len(f"{folder}/" if folder else "") :].partition("/")
            if is_flat and rest:
                folders.add(f"{folder}/{below}" if folder else below)
                continue
            entry = {"type": "file", "path": name, "size": len(content)}
            entry["oid"] = hashlib.sha1(content).hexdigest()
            entries.append(entry)
        oid = hashlib.sha1(b"").hexdigest()
        entries += [{"type": "directory", "path": p, "size": 0, "oid": oid} for p in folders]
        self._json(entries)

    def resolve(self, body: bytes, repo_id: str, revision: str, name: str) -> None:
        commit = self._commit_of(repo_id, revision)
        if commit is None:
            return
        content = commit.files.get(name)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{_oid(name, content)}"'}
        if not name.endswith(LFS_SUFFIXES):
            self._send_range(content, headers)
            return
        oid = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"{self.server.storage_url}/{oid}"
        self._send(b"", headers, 302)

    def _send_range(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(content, headers)
            return
        start, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers = {**headers, "Content-Range": f"bytes {start}-{last}/{len(content)}"}
        self._send(content[start : last + 1], headers, 206)


def _oid(name: str, content: bytes) -> str:
    """What the Hub calls the content of a file: the sha256 of a large one, git's of another."""
    if name.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ID = r"([\w.-]+/[\w.-]+)"
_KIND = "(?:models|datasets)"
_ROUTES = (
    (r"/api/whoami-v2", ("GET",), _Handler.whoami),
    (r"/api/repos/create", ("POST",), _Handler.create),
    (r"/api/validate-yaml", ("POST",), _Handler.validate_yaml),
    (rf"/api/models/{_ID}/preupload/([^/]+)", ("POST",), _Handler.preupload),
    (rf"/api/models/{_ID}/commit/([^/]+)", ("POST",), _Handler.commit),
    (rf"/api/models/{_ID}/branch/([^/]+)", ("POST",), _Handler.create_branch),
    (rf"/api/{_KIND}/{_ID}/tree/([^/]+)(?:/(.+))?", ("GET",), _Handler.tree),
    (rf"/api/{_KIND}/{_ID}/revision/([^/]+)", ("GET",), _Handler.info),
    (rf"/api/{_KIND}/{_ID}", ("GET",), _Handler.info),
    (rf"/{_ID}\.git/info/lfs/objects/batch", ("POST",), _Handler.lfs_batch),
    (r"/storage/([0-9a-f]{64})", ("PUT",), _Handler.store),
    (r"/storage/([0-9a-f]{64})", ("GET", "HEAD"), _Handler.fetch_object),
    (r"/verify", ("POST",), _Handler.verify),
    (rf"(?:/datasets)?/{_ID}/resolve/([^/]+)/(.+)", ("GET", "HEAD"), _Handler.resolve),
)
