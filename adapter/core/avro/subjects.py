"""Under which subject a registry keeps the schema of a record."""

from enum import StrEnum

from adapter.core.avro.schema import Schema


class SubjectStrategy(StrEnum):
    """Confluent's TopicRecordName, RecordName and TopicName strategies."""

    TOPIC_RECORD = "topic_record"
    RECORD = "record"
    TOPIC = "topic"


def subject(strategy: SubjectStrategy, topic: str, schema: Schema) -> str:
    match strategy:
        case SubjectStrategy.TOPIC_RECORD:
            return f"{topic}-{schema.fullname}"
        case SubjectStrategy.RECORD:
            return schema.fullname
        case SubjectStrategy.TOPIC:
            return f"{topic}-value"
