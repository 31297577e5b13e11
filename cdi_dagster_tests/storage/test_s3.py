"""What only S3 does to us: cut connections, lost replies, errors inside a good answer, refusals, versions, pages."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict

import boto3
import pytest
from botocore.config import Config
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX
from cdi_dagster.storage import (
    ObjectChangedError,
    ObjectExistsError,
    PreparedObject,
    Storage,
    StorageError,
    StorageUnavailableError,
    TransientStorageError,
    open_storage,
    storage_failure,
)
from cdi_dagster_tests.s3_server import new_s3_storage, s3_endpoint
from cdi_dagster_tests.storage.faulty_s3 import Proxy, fixed_answer

DATA = bytes(range(256)) * 8_000  # 2 MB
MakeBucket = Callable[..., str]


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_dagster.storage.s3_stream._FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cdi_dagster.storage.s3_bucket._CONFIG", Config(retries={"total_max_attempts": 1}, connect_timeout=2)
    )


def error_xml(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>said the server</Message></Error>"


@pytest.mark.parametrize("versioned", [False, True])
def test_a_read_cut_in_the_body_goes_on_where_it_was_cut(make_bucket: MakeBucket, versioned: bool) -> None:
    root = f"s3://{make_bucket(versioned=versioned)}"
    written = open_storage(root).write("a", DATA)
    cuts = iter([700_000, 500_000, 1])
    with Proxy(s3_endpoint(), lambda method, path, count: next(cuts, None)) as proxy:
        storage = open_storage(root, endpoint_url=proxy.url)
        with storage.open("a", etag=written.etag, version_id=written.version_id, first_byte=100) as stream:
            assert stream.read() == DATA[100:]

    assert [byte_range for _, _, byte_range in proxy.requests] == [
        "bytes=100-",
        "bytes=700100-",
        "bytes=1200100-",
        "bytes=1200101-",
    ]


def test_a_small_read_that_is_cut_is_made_up_for(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket()}"
    written = open_storage(root).write("a", b"content")
    cuts = iter([3, 0, 2])
    with Proxy(s3_endpoint(), lambda method, path, count: next(cuts, None)) as proxy:
        storage = open_storage(root, endpoint_url=proxy.url)
        assert storage.read_small("a", etag=written.etag) == b"content"


def test_small_reads_go_on_where_the_cheaper_client_cannot(
    make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a proxy with certificates of its own, which only boto3 is configured for."""
    import obstore.store

    opened: list[None] = []

    def refuse(*_: object, **__: object) -> None:
        opened.append(None)
        raise obstore.exceptions.GenericError("no route")

    monkeypatch.setattr(obstore.store, "S3Store", refuse)
    storage = open_storage(f"s3://{make_bucket()}")
    written = storage.write("a", b"content")
    for _ in range(10):
        assert storage.read_small("a", etag=written.etag) == b"content"
    assert len(opened) == 4
    assert "boto3 does, slower: no route" in caplog.text


def test_a_process_that_is_forked_and_one_that_gets_a_pickled_storage_read_small_objects_too(
    make_bucket: MakeBucket,
) -> None:
    storage = open_storage(f"s3://{make_bucket()}")
    written = storage.write("a", b"content")
    assert pickle.loads(pickle.dumps(storage)).read_small("a", etag=written.etag) == b"content"
    assert storage.read_small("a", etag=written.etag) == b"content"
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if storage.read_small("a", etag=written.etag) == b"content" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_small_read_that_fails_has_the_error_of_any_read(make_bucket: MakeBucket, one_try: None) -> None:
    root = f"s3://{make_bucket()}"
    with Proxy(s3_endpoint(), denied=["a"]) as proxy:
        with pytest.raises(StorageUnavailableError, match="access denied"):
            open_storage(root, endpoint_url=proxy.url).read_small("a", etag="x")
    with pytest.raises(StorageUnavailableError):
        open_storage(root, endpoint_url=proxy.url).read_small("a", etag="x")


def test_a_read_cut_before_the_object_is_replaced_never_mixes_old_and_new(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket()}"
    storage = open_storage(root)
    storage.write("a", b"o" * 2_000_000)
    with Proxy(s3_endpoint(), lambda method, path, count: 700_000 if count == 0 else None) as proxy:
        proxy.between = lambda: storage.write("a", b"n" * 2_000_000) and None
        with open_storage(root, endpoint_url=proxy.url).open("a") as stream, pytest.raises(ObjectChangedError):
            stream.read()


def test_a_version_is_read_on_though_the_object_is_replaced_and_deleted(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket(versioned=True)}"
    storage = open_storage(root)
    storage.write("a", b"o" * 2_000_000)

    def replace_and_delete() -> None:
        storage.write("a", b"n" * 2_000_000)
        storage.delete(["a"])

    with Proxy(s3_endpoint(), lambda method, path, count: 700_000 if count == 0 else None) as proxy:
        proxy.between = replace_and_delete
        with open_storage(root, endpoint_url=proxy.url).open("a") as stream:
            assert stream.read() == b"o" * 2_000_000


def test_a_connection_that_never_gets_further_is_given_up(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket()}"
    open_storage(root).write("a", DATA)

    def cut(method: str, path: str, count: int) -> int:
        return 5000 if count == 0 else -len(DATA)  # the headers only: no byte gained

    with Proxy(s3_endpoint(), cut) as proxy:
        stream = open_storage(root, endpoint_url=proxy.url).open("a")
        with pytest.raises(StorageUnavailableError, match="at byte 5000 of 2048000"):
            stream.read()
    assert len(proxy.requests) == 7


def test_a_write_if_absent_whose_response_was_lost_is_still_known_as_ours(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket()}"
    with Proxy(s3_endpoint(), lambda method, path, count: 0 if count == 0 else None) as proxy:
        storage = open_storage(root, endpoint_url=proxy.url)
        written = storage.write("lease", b"mine", if_absent=True)  # the retry is answered 412: somebody was first: we
        assert [method for method, _, _ in proxy.requests] == ["PUT", "PUT", "HEAD"]
        assert storage.head("lease") == written
        with pytest.raises(ObjectExistsError):
            storage.write("lease", b"mine", if_absent=True)


def test_a_completed_upload_whose_response_was_lost_is_still_known_as_ours(make_bucket: MakeBucket) -> None:
    root = f"s3://{make_bucket()}"
    lost = iter([0])
    with Proxy(
        s3_endpoint(), lambda method, path, count: next(lost, None) if method == "POST" and "uploadId" in path else None
    ) as proxy:
        storage = open_storage(root, endpoint_url=proxy.url)
        with storage.upload("a", group="run-1") as upload:
            upload.write(b"x" * 9_000_000)
            stored = upload.complete()
        present = storage.head("a")
        assert present is not None
        assert (present.etag, present.size_bytes) == (stored.etag, 9_000_000)


def test_keys_that_s3_would_not_delete_are_named_though_it_answered_200(aws_environment: None) -> None:
    body = (
        "<DeleteResult><Error><Key>a/1</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
        "<Error><Key>a/2</Key><Code>InternalError</Code></Error></DeleteResult>"
    )
    with fixed_answer(200, body) as url, pytest.raises(StorageError) as failure:
        open_storage("s3://bucket", endpoint_url=url).delete(["a/0", "a/1", "a/2"])
    assert "a/1, a/2" in str(failure.value)
    assert "a/0" not in str(failure.value)
    assert "AccessDenied" in str(failure.value)


@pytest.mark.parametrize(
    ("status", "code", "next_step"),
    [
        (403, "AccessDenied", "permission"),
        (404, "NoSuchBucket", "Create it"),
        (400, "ExpiredToken", "Log in again"),
        (403, "InvalidAccessKeyId", "identity"),
        (403, "SignatureDoesNotMatch", "credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (503, "SlowDown", "later"),
        (500, "InternalError", "later"),
    ],
)
def test_a_refusal_has_a_next_step(
    aws_environment: None, one_try: None, status: int, code: str, next_step: str
) -> None:
    with fixed_answer(status, error_xml(code)) as url:
        storage = open_storage("s3://bucket/below", endpoint_url=url)
        for use in (
            lambda: storage.read("a"),
            lambda: storage.write("a", b"", if_absent=True),
            lambda: list(storage.list("a/")),
            lambda: storage.delete(["a"]),
        ):
            with pytest.raises(StorageUnavailableError, match=next_step) as failure:
                use()
            assert "s3://bucket/below" in str(failure.value)
            # A transient error is retried by automation; a refusal is reported to a person.
            passes = storage_failure(failure.value).failure_class is FailureClass.STORAGE_UNAVAILABLE
            assert passes is (next_step == "later")


def test_head_returns_none_only_if_it_is_sure(make_bucket: MakeBucket, one_try: None) -> None:
    with fixed_answer(403, "") as url, pytest.raises(StorageUnavailableError, match="denied"):
        open_storage("s3://bucket", endpoint_url=url).head("a")
    with pytest.raises(StorageUnavailableError, match="does not exist"):
        open_storage("s3://no-such-bucket-anywhere").head("a")
    assert open_storage(f"s3://{make_bucket()}").head("a") is None


def test_an_endpoint_that_nobody_serves_is_unavailable(aws_environment: None, one_try: None) -> None:
    storage = open_storage("s3://bucket", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TransientStorageError, match=r"127\.0\.0\.1:9"):
        list(storage.list(""))
    with pytest.raises(StorageUnavailableError, match="AWS_ENDPOINT_URL"):
        open_storage("s3://bucket", endpoint_url="not a url").read("a")


def test_a_large_object_is_copied_in_ranges(make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_dagster.storage.s3_upload._COPIED_BYTES", 3 * len(DATA))
    storage = open_storage(f"s3://{make_bucket()}")
    storage.write("staged", DATA * 4)
    prepared = storage.prepare_stored("staged", "out/part", group="run-1")
    assert len(prepared.token["parts"]) == 2
    storage.publish("out/", [prepared], b"mark", group="run-1")
    assert storage.read("out/part") == DATA * 4


def test_version_ids_stay_unknown_where_we_may_not_read_them(make_bucket: MakeBucket) -> None:
    name = make_bucket(versioned=True)
    open_storage(f"s3://{name}").write("a", b"1")
    for denied in ("?versioning", "?versions"):
        with Proxy(s3_endpoint(), denied=[denied]) as proxy:
            (listed,) = open_storage(f"s3://{name}", endpoint_url=proxy.url).list("", versions=True)
        assert (listed.key, listed.version_id) == ("a", None)


def test_a_thousand_objects_and_one_are_listed_and_deleted(make_bucket: MakeBucket) -> None:
    name = make_bucket()
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # the server's own, in this process: a thousand PUTs take 10 s
    for number in range(1001):
        backend.put_object(name, f"day/{number:04}", b"")
    storage = open_storage(f"s3://{name}")

    assert [stored.key for stored in storage.list("day/")] == [f"day/{n:04}" for n in range(1001)]
    storage.delete(stored.key for stored in storage.list("day/"))
    assert list(storage.list("")) == []


def test_a_folder_marker_made_by_a_console_is_not_listed(make_bucket: MakeBucket) -> None:
    name = make_bucket()
    boto3.client("s3").put_object(Bucket=name, Key="day/", Body=b"")
    assert list(open_storage(f"s3://{name}").list("")) == []


def test_what_discard_aborts_is_gone_from_s3(make_bucket: MakeBucket) -> None:
    name = make_bucket()
    storage = open_storage(f"s3://{name}")
    with storage.upload("out/a", group="run-1") as upload:
        upload.write(b"x")
        upload.prepare()
    client = boto3.client("s3")
    assert len(client.list_multipart_uploads(Bucket=name)["Uploads"]) == 1
    storage.discard("", group="run-1")
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)
    assert "Contents" not in client.list_objects_v2(Bucket=name)


def prepare(storage: Storage, group: str) -> PreparedObject:
    with storage.upload("out/part", group=group) as upload:
        upload.write(group.encode())
        return upload.prepare()


@pytest.mark.parametrize("by", ["recover", "publish", "discard"])
def test_what_a_killed_publisher_left_is_finished_or_discarded(make_bucket: MakeBucket, by: str) -> None:
    name = make_bucket()
    storage = open_storage(f"s3://{name}")
    decided, given_up = prepare(storage, "run-1"), prepare(storage, "run-2")
    journal = {
        "prefix": "out/",
        "group": "run-1",
        "prepared": [asdict(decided)],
        "mark": "bWFyaw==",
        "mark_before": None,
    }
    client = boto3.client("s3")
    client.put_object(Bucket=name, Key=f"{PUBLICATIONS_PREFIX}journals/out/journal.json", Body=json.dumps(journal))

    storage.discard("out/", group="run-2" if by == "discard" else None)
    uploads = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [upload["UploadId"] for upload in uploads] == [decided.token["upload_id"]] != [given_up.token["upload_id"]]
    if by == "publish":
        storage.publish("out/", [prepare(storage, "run-3")], b"mark", group="run-3")
    else:
        storage.recover("out/")
    assert storage.read("out/part") == (b"run-3" if by == "publish" else b"run-1")
    assert storage.read("out/_SUCCESS") == b"mark"
    assert [row["Key"] for row in client.list_objects_v2(Bucket=name)["Contents"]] == ["out/_SUCCESS", "out/part"]


def test_a_role_that_may_use_our_own_prefix_only_publishes_recovers_and_discards(make_bucket: MakeBucket) -> None:
    name = make_bucket()
    with Proxy(s3_endpoint(), denied=[f"/{name}/_", "prefix=_publications"]) as proxy:
        storage = open_storage(f"s3://{name}", endpoint_url=proxy.url)
        prepare(storage, "run-1")
        storage.discard("out/", group=None)
        storage.publish("out/", [prepare(storage, "run-2")], b"mark", group="run-2")
        storage.recover("out/")
    client = boto3.client("s3")
    assert [row["Key"] for row in client.list_objects_v2(Bucket=name)["Contents"]] == ["out/_SUCCESS", "out/part"]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_a_storage_in_use_crosses_processes(make_bucket: MakeBucket) -> None:
    storage = open_storage(f"s3://{make_bucket()}")
    storage.write("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"


def test_a_long_listing_is_the_same_whatever_lists_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of it is obstore's; an empty `folder/`, which it shows as an object, is boto3's."""
    monkeypatch.setattr("cdi_dagster.storage.s3._PAGE_KEYS", 5)
    storage = new_s3_storage()
    names = [f"day/{number:02}_ä +%20&\u4e2d.gz" for number in range(30)]
    for name in names:
        storage.write(name, b"x")
    client = storage._bucket.client  # type: ignore[attr-defined]
    client.put_object(Bucket=storage._bucket.name, Key="day/17/", Body=b"")  # type: ignore[attr-defined]
    storage.write("day/20_empty", b"")
    pages: list[str] = []
    client.meta.events.register("before-call.s3.ListObjectsV2", lambda **_: pages.append("boto3"))
    listed = list(storage.list("day/"))
    assert 2 <= len(pages) <= 4
    monkeypatch.setattr("cdi_dagster.storage.s3_small.SmallReads._is_usable", lambda _: False)
    assert listed == list(storage.list("day/"))
    assert [stored.key for stored in listed] == sorted([*names, "day/20_empty"])
    assert len(pages) > 8
