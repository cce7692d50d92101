"""What is in bodies of requests and answers, as JSON Schema (2020-12); the names are Mailpit's where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["COMPONENTS", "MAX_IDS", "Schema", "array", "ref"]

Schema = Mapping[str, Any]

#: How many messages one request may name, and how many tags, addresses and so on it may have.
MAX_IDS: Final = 10_000
MAX_ITEMS: Final = 1_000

STRING: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
STAMP: Final[Schema] = {"type": "string", "format": "date-time"}


def ref(name: str) -> Schema:
    """A reference to one of :data:`COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema, most: int | None = None) -> Schema:
    """A list.

    :param items: what is in it.
    :param most: how many items it may have at most.
    """
    bound = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": items, **bound}


def text(description: str, most: int | None = None) -> Schema:
    """A text.

    :param most: how many characters it may have.
    """
    bound = {} if most is None else {"maxLength": most}
    return {**STRING, "description": description, **bound}


def whole(description: str, low: int = 0, high: int | None = None) -> Schema:
    """A whole number."""
    bound = {} if high is None else {"maximum": high}
    return {"type": "integer", "minimum": low, **bound, "description": description}


def record(properties: Mapping[str, Schema], *, needs: tuple[str, ...] | None = None) -> Schema:
    """An object.

    :param needs: the properties that have to be there; ``None`` for all.
    """
    required = list(properties) if needs is None else list(needs)
    return {"type": "object", "properties": dict(properties), **({"required": required} if required else {})}


def body(properties: Mapping[str, Schema], *, needs: tuple[str, ...] = ()) -> Schema:
    """The object in the body of a request: it has no other properties, and null is for what is not set.

    :param needs: the properties that have to be there.
    """
    allowed = {name: schema if name in needs else _or_null(schema) for name, schema in properties.items()}
    return {**record(allowed, needs=needs), "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    kind = schema.get("type")
    if kind is None:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema if isinstance(kind, list) else {**schema, "type": [kind, "null"]}


_PERCENT: Schema = {"type": "number", "minimum": 0, "maximum": 100}
_PERCENTS: Mapping[str, Schema] = {"Supported": _PERCENT, "Partial": _PERCENT, "Unsupported": _PERCENT}
_ADDRESSES = array(ref("Address"))
_IDS = array({**STRING, "maxLength": 64}, MAX_IDS)
_TAG: Schema = {**STRING, "minLength": 1, "maxLength": 100}
_MAILBOX = {**STRING, "maxLength": 320}
_SENT_TO = array(ref("SendAddress"), MAX_ITEMS)

_SUMMARY: Mapping[str, Schema] = {
    "ID": text("Number of the message."),
    "MessageID": text("The Message-ID header, without its angle brackets."),
    "From": {"oneOf": [ref("Address"), {"type": "null"}]},
    "To": _ADDRESSES,
    "Cc": _ADDRESSES,
    "Bcc": {**_ADDRESSES, "description": "The Bcc header, and the envelope's recipients that no header names."},
    "ReplyTo": _ADDRESSES,
    "Subject": STRING,
    "Username": text("The user who signed in to send it; empty if there was none."),
    "Tags": array(STRING),
    "Size": whole("Octets of the message."),
    "Read": BOOLEAN,
    "Mailboxes": array(STRING),
    "MailFrom": text("The envelope's reverse-path; empty for the null one."),
    "Recipients": {**array(STRING), "description": "The envelope's recipients."},
    "Refusal": text("The reply that refused the message; empty if it was accepted."),
    "Session": text("The id of the SMTP session."),
}

_RELAY = record(
    {
        "Enabled": BOOLEAN,
        "SMTPServer": text("The host to which messages are released."),
        "ReturnPath": STRING,
        "OverrideFrom": STRING,
        "AllowedRecipients": STRING,
        "BlockedRecipients": STRING,
        "RecipientAllowlist": STRING,
        "PreserveMessageIDs": BOOLEAN,
    }
)

_FAILURE: Mapping[str, Schema] = {
    "where": text("The command or the place, such as RCPT, DATA, CONNECT, CONTENT.", 40),
    "what": text("A reply such as '451 4.7.1 later', or drop, stall, slow, garble, greylist and so on.", 1000),
    "match": {"type": ["string", "null"], "maxLength": 1000, "description": "What the command line has to contain."},
    "times": {"type": ["integer", "null"], "minimum": 1, "description": "How often it happens; null for always."},
    "after": whole("How many times nothing happens first."),
    "delay": {"type": ["number", "null"], "minimum": 0, "description": "Seconds, for slow and split."},
    "octets": whole("How much of the message is read first, for CONTENT."),
    "chance": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "How likely it is."},
    "seed": {"type": "integer", "description": "For the chance: the same number gives the same failures."},
}

#: Schemas by name, for :func:`ref`.
COMPONENTS: Final[Mapping[str, Schema]] = {
    "Error": record({"Error": text("What is wrong, in one line.")}),
    "Address": record({"Name": STRING, "Address": STRING}),
    "Attachment": record(
        {
            "PartID": text("Number of the part, for /part/{PartID}."),
            "FileName": STRING,
            "ContentType": STRING,
            "ContentID": text("Without angle brackets."),
            "Size": whole("Octets, decoded."),
            "Checksums": record({"MD5": STRING, "SHA1": STRING, "SHA256": STRING}),
        }
    ),
    "MessageSummary": record(
        {
            **_SUMMARY,
            "Created": {**STAMP, "description": "When it came."},
            "Attachments": COUNT,
            "Inline": COUNT,
            "Snippet": text("Up to 250 characters of the text."),
        }
    ),
    "MessagesSummary": record(
        {
            "total": whole("Messages in the mailbox."),
            "unread": whole("Unread messages in the mailbox."),
            "count": whole("Messages in this answer."),
            "messages_count": whole("Messages that match."),
            "messages_unread": whole("Unread messages that match."),
            "start": whole("How many messages were left out before the first one."),
            "tags": {**array(STRING), "description": "All tags."},
            "messages": array(ref("MessageSummary")),
        }
    ),
    "ListUnsubscribe": record(
        {
            "Header": STRING,
            "HeaderPost": STRING,
            "Links": array(STRING),
            "Errors": text("What RFC 2369 and RFC 8058 want otherwise."),
        }
    ),
    "Message": record(
        {
            **_SUMMARY,
            "Date": {**STAMP, "description": "The Date header; when it came, if there is none that can be read."},
            "ReturnPath": STRING,
            "ListUnsubscribe": ref("ListUnsubscribe"),
            "Text": STRING,
            "HTML": STRING,
            "Inline": array(ref("Attachment")),
            "Attachments": array(ref("Attachment")),
        }
    ),
    "Headers": {"type": "object", "additionalProperties": array(STRING)},
    "Strings": array(STRING),
    "Links": record({"Links": array(STRING)}),
    "Codes": record({"Codes": {**array(STRING), "description": "The likeliest first."}}),
    "HTMLCheck": record(
        {
            "Total": record({"Tests": COUNT, "Nodes": COUNT, **_PERCENTS}),
            "Platforms": {"type": "object", "additionalProperties": array(STRING)},
            "Warnings": array(
                record(
                    {
                        **dict.fromkeys(("Slug", "Title", "Description", "URL", "Keywords"), STRING),
                        "Category": {"enum": ["css", "html", "image", "others"]},
                        "Tags": array(STRING),
                        "Results": array(
                            record(
                                dict.fromkeys(
                                    ("Name", "Family", "Platform", "Version", "Support", "NoteNumber"), STRING
                                )
                            )
                        ),
                        "NotesByNumber": {"type": "object", "additionalProperties": STRING},
                        "Score": record({"Found": COUNT, **_PERCENTS}),
                    }
                )
            ),
        }
    ),
    "LinkCheck": record(
        {"Errors": COUNT, "Links": array(record({"URL": STRING, "StatusCode": COUNT, "Status": STRING}))}
    ),
    "HeaderCheck": record(
        {"Findings": array(record({"Level": {"enum": ["bad", "warn"]}, "Text": STRING, "Rule": STRING}))}
    ),
    "Mailboxes": array(record({"Name": STRING, "Total": COUNT, "Unread": COUNT, "Refused": COUNT})),
    "Info": record(
        {
            "Version": STRING,
            "LatestVersion": text("The same as Version: nothing is asked on the Internet."),
            "Database": text("The store's file; empty if it has none, or if a token of one mailbox asks."),
            "DatabaseSize": COUNT,
            "Messages": COUNT,
            "Unread": COUNT,
            "Tags": {"type": "object", "additionalProperties": COUNT},
            "RuntimeStats": record(
                {
                    "Uptime": whole("Seconds since the start."),
                    "Memory": whole("Octets of memory that the process had at most."),
                    "MessagesDeleted": COUNT,
                    "SMTPAccepted": COUNT,
                    "SMTPAcceptedSize": COUNT,
                    "SMTPRejected": COUNT,
                    "SMTPIgnored": COUNT,
                }
            ),
        }
    ),
    "WebUI": record(
        {
            "Label": STRING,
            "MessageRelay": _RELAY,
            "SpamAssassin": BOOLEAN,
            "ChaosEnabled": BOOLEAN,
            "DuplicatesIgnored": BOOLEAN,
            "HideDeleteAllButton": BOOLEAN,
        }
    ),
    "Trigger": body(
        {"ErrorCode": whole("The reply's code.", 400, 599), "Probability": whole("Percent.", 0, 100)},
        needs=("ErrorCode", "Probability"),
    ),
    "Triggers": record({name: ref("Trigger") for name in ("Sender", "Recipient", "Authentication")}),
    "Failure": record({"id": COUNT, **_FAILURE, "used": whole("How often it has happened.")}),
    "Failures": array(ref("Failure")),
    "Confirmation": record({"ID": text("Number of the message.")}),
    # Bodies of requests.
    "IDs": body({"IDs": _IDS}),
    "NamedIDs": body({"IDs": _IDS}, needs=("IDs",)),
    "ReadStatus": body({"IDs": _IDS, "Search": text("A search, in place of IDs.", 2000), "Read": BOOLEAN}),
    "SetTags": body({"IDs": _IDS, "Tags": array(_TAG, MAX_ITEMS)}, needs=("IDs",)),
    "RenameTag": body({"Name": _TAG}, needs=("Name",)),
    "Release": body({"To": array(_MAILBOX, MAX_ITEMS)}, needs=("To",)),
    "SendAddress": body({"Email": _MAILBOX, "Name": {**STRING, "maxLength": 1000}}, needs=("Email",)),
    "SendAttachment": body(
        {
            "Content": text("The file in Base64."),
            "Filename": {**STRING, "maxLength": 1000},
            "ContentType": {**STRING, "maxLength": 200},
            "ContentID": text("With one, it is inline.", 200),
        },
        needs=("Content", "Filename"),
    ),
    "Send": body(
        {
            "From": ref("SendAddress"),
            "To": _SENT_TO,
            "Cc": _SENT_TO,
            "Bcc": array(_MAILBOX, MAX_ITEMS),
            "ReplyTo": _SENT_TO,
            "Subject": {**STRING, "maxLength": 10_000},
            "Text": STRING,
            "HTML": STRING,
            "Attachments": array(ref("SendAttachment"), 100),
            "Headers": {"type": "object", "additionalProperties": {**STRING, "maxLength": 10_000}},
            "Tags": array(_TAG, MAX_ITEMS),
        },
        needs=("From",),
    ),
    "SetTriggers": body({name: ref("Trigger") for name in ("Sender", "Recipient", "Authentication")}),
    "NewFailure": body(_FAILURE, needs=("where", "what")),
}
