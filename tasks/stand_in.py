"""MiniStack, corrected where it does not do as AWS does."""

import contextvars
import fcntl
import functools
import json
import re
import sys
import threading
import time
from xml.sax.saxutils import escape, unescape

# Its log: the system frees the lock when the last process of its group has ended.
fcntl.flock(1, fcntl.LOCK_EX)

from ministack.app import main
from ministack.core import iam_actions, iam_evaluator
from ministack.services import cloudwatch, cloudwatch_logs, dynamodb_streams, lambda_svc, s3


def corrected(module, name):
    """Replaces a function of MiniStack's by one that is also given the original."""

    def replace(correction):
        original = getattr(module, name)
        setattr(module, name, functools.wraps(original)(functools.partial(correction, original)))

    return replace


@corrected(s3, "_list_object_versions")
def _(original, bucket, query):
    """XML cannot carry every key, so S3 encodes the keys of a listing if it is asked to."""
    status, headers, body = original(bucket, query)
    if status == 200 and s3._qp(query, "encoding-type", "") == "url":
        names = r"<(Key|KeyMarker|NextKeyMarker|Prefix|Delimiter)>(.*?)</\1>"
        encode = lambda found: f"<{found[1]}>{s3._url_encode(unescape(found[2]))}</{found[1]}>"
        text = re.sub(names, encode, body.decode(), flags=re.DOTALL)
        said = "<EncodingType>url</EncodingType>"
        body = text.replace("<IsTruncated>", said + "<IsTruncated>").encode()
    return status, headers, body


@corrected(s3, "_get_object")
def _(original, bucket, key, headers, query=None):
    """A range of a version is that range, without a checksum, and not the whole version."""
    if "range" not in headers:
        return original(bucket, key, headers, query)
    headers = {name: value for name, value in headers.items() if name != "x-amz-checksum-mode"}
    status, answer, body = original(bucket, key, headers, query)
    if status != 200:
        return status, answer, body
    span = s3._parse_range(headers["range"], len(body))
    if span is None:
        answer = {"Content-Type": "application/xml", "Content-Range": f"bytes */{len(body)}"}
        return 416, answer, s3._xml_body(s3._range_error_xml(bucket, key))
    start, end = span
    answer["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
    answer["Content-Length"] = str(end + 1 - start)
    return 206, answer, body[start : end + 1]


@corrected(s3, "_dispatch")
def _(original, method, bucket, key, headers, body, query):
    """GetBucketRequestPayment is no listing."""
    if method == "GET" and not key and "requestPayment" in query:
        return s3._get_bucket_request_payment(bucket)
    return original(method, bucket, key, headers, body, query)


@corrected(iam_evaluator, "_fnmatch_compile")
def _(original, pattern, ignore_case):
    """A `*` of IAM's takes line feeds too."""
    known = original(pattern, ignore_case)
    return re.compile(known.pattern, known.flags | re.DOTALL)


@corrected(iam_actions, "extract_resource_arn")
def _(original, service, method, path, headers, body, query, region, account):
    """These calls have their resource in the body."""
    arn = original(service, method, path, headers, body, query, region, account)
    if arn != "*" or service not in ("dynamodb", "dynamodbstreams", "lambda", "monitoring"):
        return arn
    named = lambda name: iam_actions._param(body, query, name)
    if service == "lambda":
        name = named("FunctionName")
        return f"arn:aws:lambda:{region}:{account}:function:{name}" if name else arn
    if service == "dynamodb":
        return named("ResourceArn") or arn
    if service == "dynamodbstreams":
        iterator = dynamodb_streams._decode_iterator(named("ShardIterator") or "") or {}
        return named("StreamArn") or iterator.get("arn") or arn
    alarms = named("AlarmNames") or [named("AlarmNames.member.1") or "*"]
    return named("ResourceARN") or f"arn:aws:cloudwatch:{region}:{account}:alarm:{alarms[0]}"


@corrected(cloudwatch, "_describe_alarms")
def _(original, params, cbor, is_cbor, is_json=False):
    """An alarm is told with all that it was made with."""
    status, headers, body = original(params, cbor, is_cbor, is_json)
    if status != 200 or is_cbor or is_json:
        return status, headers, body
    whole = lambda found: element("member", cloudwatch._alarms.get(found[1]) or {})
    members = r"<member><AlarmName>([^<]*)</AlarmName>.*?</member>"
    head, tail = body.decode().split("<CompositeAlarms>", 1)
    text = re.sub(members, whole, head, flags=re.DOTALL) + "<CompositeAlarms>" + tail
    return status, headers, text.encode()


def element(name, value):
    """A value as XML of AWS's query protocol."""
    if value is None:
        return ""
    if isinstance(value, dict):
        inner = "".join(element(*item) for item in value.items())
    elif isinstance(value, list):
        inner = "".join(element("member", item) for item in value)
    elif name.endswith("Timestamp"):
        inner = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    else:
        inner = escape(str(value).lower() if isinstance(value, bool) else str(value))
    return f"<{name}>{inner}</{name}>"


@corrected(cloudwatch_logs, "_compile_filter_pattern")
def _(original, pattern):
    """A pattern in braces selects lines of JSON: those that have one of its values."""
    if not pattern.startswith("{"):
        return original(pattern)
    wanted = re.findall(r'\$\.(\w+) = "(.*?)"', pattern)

    def matches(message):
        try:
            line = json.loads(message)
        except ValueError:
            return False
        return isinstance(line, dict) and any(line.get(name) == value for name, value in wanted)

    return matches


@corrected(cloudwatch_logs, "_filter_log_events")
def _(original, data):
    """Lines have ids, come newest first if that is asked for, and go on where a full page ends."""
    status, headers, body = original({**data, "limit": 1})  # which refuses what it must
    if status != 200:
        return status, headers, body
    since, end = data.get("startTime", 0), data.get("endTime", float("inf"))
    is_wanted = cloudwatch_logs._compile_filter_pattern(data.get("filterPattern", ""))
    group = cloudwatch_logs._log_groups[cloudwatch_logs._resolve_log_group_name(data)]
    names = data.get("logStreamNames") or group["streams"]
    with cloudwatch_logs._log_events_lock:
        lines = [
            {**line, "logStreamName": name, "eventId": f"{name} {line}"}
            for name, stream in group["streams"].items()
            for line in stream["events"]
            if name in names and since <= line["timestamp"] <= end and is_wanted(line["message"])
        ]
    newest_first = data.get("startFromHead") is False
    lines.sort(key=lambda line: line["timestamp"], reverse=newest_first)
    first = int(data.get("nextToken") or 0)
    last = first + min(data.get("limit", 10_000), 10_000)
    more = {"nextToken": str(last)} if last < len(lines) else {}
    return cloudwatch_logs.json_response({"events": lines[first:last], **more})


is_event = contextvars.ContextVar("is_event", default=False)
room = threading.Semaphore(lambda_svc._ACCOUNT_CONCURRENCY_CAP)


@corrected(lambda_svc, "invoke_async_with_retry")
def _(original, func, event):
    token = is_event.set(True)  # its thread inherits this
    try:
        original(func, event)
    finally:
        is_event.reset(token)


@corrected(lambda_svc, "_execute_function")
def _(original, func, event):
    """An event waits for room, and is tried again if it is throttled: that is no failure."""
    if not is_event.get():
        return original(func, event)
    token = is_event.set(False)  # the original calls itself
    try:
        with room:
            while (result := original(func, event)).get("throttle"):
                time.sleep(1)
            return result
    finally:
        is_event.reset(token)


del sys.argv[1:]  # they are for who looks at the list of processes
main()
