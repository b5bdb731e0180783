"""Drives every method of a daemon whose password is `secret`, whose source was scanned, which has no mirror yet and whose
indexer answers the first scan of the repository and the first of a mirror.

Arguments: the daemon's address. Fails with the first assertion that does not hold.
"""

import os
import sys
import tempfile

import grpc
from google.protobuf import empty_pb2, timestamp_pb2
from grpc_tools import protoc

EMPTY = empty_pb2.Empty()
PASSWORD = (("password", "secret"),)


def compiled(proto):
    """The modules of the messages and of the stubs."""
    folder, name = os.path.split(os.path.abspath(proto))
    well_known = os.path.join(os.path.dirname(protoc.__file__), "_proto")
    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{folder}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}", name]
        assert protoc.main(arguments) == 0, "the .proto file cannot be compiled"
        sys.path.insert(0, out)
        import client_pb2
        import client_pb2_grpc

        return client_pb2, client_pb2_grpc


messages, stubs = compiled(os.path.join(os.path.dirname(__file__), "client.proto"))
cli = stubs.CLIStub(grpc.insecure_channel(sys.argv[1]))


def call(method, request, **options):
    return getattr(cli, method)(request, metadata=PASSWORD, timeout=30, **options)


def refused(method, request, metadata=PASSWORD):
    """The status code and text of a call that must fail."""
    try:
        getattr(cli, method)(request, metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"{method} did not fail")


def by_id(mirror_id):
    return messages.MirrorIDRequest(ID=mirror_id)


def at(seconds):
    return timestamp_pb2.Timestamp(seconds=seconds)


# Who may call.
for metadata in ((), (("password", "wrong"),)):
    assert refused("Ping", EMPTY, metadata)[0] == grpc.StatusCode.UNAUTHENTICATED
call("Ping", EMPTY)

version = call("GetVersion", EMPTY)
assert version.Version and version.OS == "linux" and version.GoMaxProcs >= 1, version

# The life of a mirror.
assert len(call("List", EMPTY).Mirrors) == 0
added = call("AddMirror", messages.Mirror(Name="paris", HttpURL="http://192.0.2.1/pub", RsyncURL="rsync://192.0.2.1/m"))
assert (added.Country, added.Continent, len(added.Warnings)) == ("FR", "EU", 0), added
assert abs(added.Latitude - 48.8566) < 1e-3, added
assert refused("AddMirror", messages.Mirror(Name="paris", HttpURL="http://192.0.2.2/"))[1] == "name already taken"
mirrors = call("List", EMPTY).Mirrors
assert [(m.ID, m.Name, m.HttpURL, m.Enabled) for m in mirrors] == [(1, "paris", "http://192.0.2.1/pub/", False)], mirrors
assert mirrors[0].HasField("StateSince") and mirrors[0].HasField("LastModTime"), "clients take a missing time for an error"

info = call("MirrorInfo", by_id(1))
assert info == mirrors[0], info
info.Score = 7
info.CountryCodes = "fr,be"
assert call("UpdateMirror", info).Diff == "- Score: 0\n+ Score: 7\n- CountryCodes: FR\n+ CountryCodes: FR BE\n"
call("ChangeStatus", messages.ChangeStatusRequest(ID=1, Enabled=True))
assert call("MirrorInfo", by_id(1)).Enabled

matched = call("MatchMirror", messages.MatchRequest(Pattern="PAR")).Mirrors
assert [(m.ID, m.Name) for m in matched] == [(1, "paris")], matched
assert len(call("MatchMirror", messages.MatchRequest(Pattern="")).Mirrors) == 0

info = call("MirrorInfo", by_id(1))
info.Latitude = 1
call("UpdateMirror", info)
located = call("GeoUpdateMirror", by_id(1))
assert located.Diff == "- Latitude: 1\n+ Latitude: 48.8566\n", located
assert call("MirrorInfo", by_id(1)).Latitude == 1, "only UpdateMirror stores"
assert call("UpdateMirror", located.Mirror).Diff == located.Diff

# Work of the indexer.
call("RefreshRepository", messages.RefreshRepositoryRequest(Rehash=True))
scanned = call("ScanMirror", messages.ScanMirrorRequest(ID=1, AutoEnable=True, Protocol="RSYNC"))
assert (scanned.FilesIndexed, scanned.KnownIndexed, scanned.Removed, scanned.TZOffsetMs) == (12, 10, 1, 3600000), scanned
assert scanned.Enabled

# Statistics of a day of 2024, and logs.
day, next_day = at(1714953600), at(1715040000)
files = call("StatsFile", messages.StatsFileRequest(Pattern=r"\.iso$", DateStart=day, DateEnd=next_day)).files
assert dict(files) == {"/a.iso": 3}, files
assert not call("StatsFile", messages.StatsFileRequest(Pattern="iso", DateStart=next_day, DateEnd=next_day)).files
assert refused("StatsFile", messages.StatsFileRequest(Pattern="("))[0] == grpc.StatusCode.INVALID_ARGUMENT
traffic = call("StatsMirror", messages.StatsMirrorRequest(ID=1, DateStart=day, DateEnd=next_day))
assert (traffic.Requests, traffic.Bytes, traffic.Mirror.Name) == (4, 4096, "paris"), traffic

log = call("GetMirrorLogs", messages.GetMirrorLogsRequest(ID=1, MaxResults=2)).line
assert len(log) == 2 and all(line.endswith("UTC: Mirror edited") for line in log), log

# Ids that name no mirror.
for mirror_id in (-1, 0, 99):
    for method, request in (
        ("MirrorInfo", by_id(mirror_id)),
        ("RemoveMirror", by_id(mirror_id)),
        ("GeoUpdateMirror", by_id(mirror_id)),
        ("ChangeStatus", messages.ChangeStatusRequest(ID=mirror_id)),
        ("UpdateMirror", messages.Mirror(ID=mirror_id, Name="a", HttpURL="http://a/")),
        ("ScanMirror", messages.ScanMirrorRequest(ID=mirror_id)),
        ("StatsMirror", messages.StatsMirrorRequest(ID=mirror_id, DateStart=day, DateEnd=day)),
        ("GetMirrorLogs", messages.GetMirrorLogsRequest(ID=mirror_id)),
    ):
        expected = (grpc.StatusCode.FAILED_PRECONDITION, "invalid mirror id")
        assert refused(method, request) == expected, (method, mirror_id)

call("RemoveMirror", by_id(1))
assert len(call("List", EMPTY).Mirrors) == 0

call("Reload", EMPTY)
code, text = refused("Upgrade", EMPTY)
assert code == grpc.StatusCode.FAILED_PRECONDITION and "no program" in text, (code, text)

print("every method works")
