"""Access rules of a Kafka that has an authorizer, against whoever asks: all clients of these tests are one user."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.support.wait import PATIENCE, wait_until

AUTHORIZER: Final = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Server properties. What has no rule is open to everybody, the nodes themselves included."""


@contextmanager
def denied(bootstrap: str, resource: ResourceType, name: str, *operations: AclOperation) -> Iterator[None]:
    """Meanwhile nobody may do that with the topic or group; all else is granted."""

    def rule(operation: AclOperation, permission: AclPermissionType) -> AclBinding:
        return AclBinding(resource, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission)

    def exactly(rule: AclBinding) -> AclBindingFilter:
        return AclBindingFilter(
            resource, name, rule.resource_pattern_type, rule.principal, rule.host, rule.operation, rule.permission_type
        )

    def holds(rule: AclBinding) -> bool:
        return bool(client.describe_acls(exactly(rule)).result(PATIENCE))

    client = AdminClient({"bootstrap.servers": bootstrap})
    rules = [rule(AclOperation.ALL, AclPermissionType.ALLOW)]
    rules += [rule(operation, AclPermissionType.DENY) for operation in operations]
    for done in client.create_acls(rules).values():
        done.result(PATIENCE)
    try:
        wait_until(lambda: all(holds(rule) for rule in rules), what="the rules")
        yield
    finally:
        for gone in client.delete_acls(list(map(exactly, rules))).values():
            gone.result(PATIENCE)


@contextmanager
def writing_nothing(kafka: str) -> Iterator[None]:
    """Meanwhile nobody may write to any topic, so that Kafka gives no producer an id."""
    with (
        denied(kafka, ResourceType.TOPIC, "*", AclOperation.WRITE),
        denied(kafka, ResourceType.BROKER, "kafka-cluster", AclOperation.IDEMPOTENT_WRITE),
    ):
        yield
