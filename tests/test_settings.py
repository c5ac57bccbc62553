"""Settings: read from variables, all faults at once, described once."""

from datetime import timedelta
from pathlib import Path

import pytest

from adapter.core.errors import Stop
from adapter.settings import Bus, Cluster, Settings, Vocabulary, describe, load, markdown
from adapter.settings.kinds import parse_duration, parse_size
from tests.support.shut import shut

ROOT = Path(__file__).parents[1]

LEAST = {
    "ADAPTER_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
    "ADAPTER_REGISTRY__URL": "http://registry:8081",
    "ADAPTER_SUPPLIER__BASE_URL": "https://supplier.example/api2",
    "ADAPTER_SUPPLIER__BUYER_IDENTIFIER": "SPDEV1",
}


def faults(tree_type: type[Settings | Cluster | Vocabulary], **variables: str) -> dict[str, str]:
    """What `load` complains of, by variable, with the least settings and these."""
    environ = LEAST | {f"ADAPTER_{name}": value for name, value in variables.items()}
    with pytest.raises(Stop) as stop:
        load(tree_type, environ)
    return dict(problem.split(": ", 1) for problem in stop.value.problems)


def loaded(**variables: str) -> Settings:
    return load(Settings, LEAST | {f"ADAPTER_{name}": value for name, value in variables.items()})


def test_an_empty_environment_is_told_everything_that_must_be_set() -> None:
    with pytest.raises(Stop) as stop:
        load(Settings, {})
    assert [problem.partition(":")[0] for problem in stop.value.problems] == [
        "ADAPTER_KAFKA__BOOTSTRAP_SERVERS",
        "ADAPTER_REGISTRY__URL",
        "ADAPTER_SUPPLIER__BASE_URL",
        "ADAPTER_SUPPLIER__BUYER_IDENTIFIER",
    ]
    assert all("is missing" in problem for problem in stop.value.problems)


def test_faults_of_all_kinds_come_together() -> None:
    found = faults(
        Settings,
        KAFKA__BOOTSTRAP="kafka:9092",
        KAFKA__GROUP_PROTOCOL="modern",
        KAFKA__PROPERTIES="{",
        REGISTRY__TIMEOUT="soon",
        SUPPLIER__ENVIRONMENT="production",
        SUPPLIER__MAX_IN_FLIGHT="many",
        SUPPLIER__TLS__KEY="/nowhere/key.pem",
        SUPPLIER__ALLOW_PLAINTEXT="perhaps",
        SUPPLIER__TIME_ZONE="Mars/Olympus",
        TOPICS__EVENTS="fault.commands",
        TOPICS__MAX_MESSAGE_BYTES="4 furlongs",
        WORKER__STOP_TIMEOUT="1s",
    )
    assert set(found) == {
        "ADAPTER_KAFKA__BOOTSTRAP",
        "ADAPTER_KAFKA__GROUP_PROTOCOL",
        "ADAPTER_KAFKA__PROPERTIES",
        "ADAPTER_REGISTRY__TIMEOUT",
        "ADAPTER_SUPPLIER__BASE_URL",
        "ADAPTER_SUPPLIER__MAX_IN_FLIGHT",
        "ADAPTER_SUPPLIER__TLS__KEY",
        "ADAPTER_SUPPLIER__TLS__CERTIFICATE",
        "ADAPTER_SUPPLIER__ALLOW_PLAINTEXT",
        "ADAPTER_SUPPLIER__TIME_ZONE",
        "ADAPTER_TOPICS__EVENTS",
        "ADAPTER_TOPICS__MAX_MESSAGE_BYTES",
        "ADAPTER_WORKER__STOP_TIMEOUT",
    }
    assert "write for example" in found["ADAPTER_REGISTRY__TIMEOUT"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA__PROPERTIES", "s3cr3t-value"),
        ("REGISTRY__URL", "https://me:s3cr3t-value@registry"),
        ("REGISTRY__CREDENTIALS", "s3cr3t-value"),
        ("REGISTRY__CREDENTIALS", "s3cr3t-value" * 50),
        ("REGISTRY__CREDENTIALS", "s3cr3t-value/" * 500),
        ("REGISTRY__CREDENTIALS", "/s3cr3t-value/\nx"),
        ("KAFKA__PROPERTIES_FILES__SASL_PASSWORD", "s3cr3t-value" * 50),
        ("KAFKA__PROPERTIES_FILES", '{"sasl.password": "s3cr3t-value\\u0000"}'),
        ("KAFKA__PROPERTIES_FILES", '{"sasl.password": "s3cr3t-value\\ud800"}'),
        ("SCHEMAS", "s3cr3t-value" * 50),
        ("SUPPLIER__TLS__KEY", "s3cr3t-value"),
        ("SUPPLIER__TIME_ZONE", "s3cr3t-value"),
        ("SUPPLIER__BUYER_IDENTIFIER", "s3cr3t-value" * 4),
        ("SUPPLIER__DOUBT_LIMITS", '{"AddFaultReport": "s3cr3t-value"}'),
        ("WORKER__RETRY_MAX", "s3cr3t-value"),
        ("TELEMETRY__LOG_LEVEL", "s3cr3t-value"),
    ],
)
def test_a_fault_does_not_repeat_the_value(variable: str, value: str) -> None:
    assert "s3cr3t" not in str(faults(Settings, **{variable: value}))


@pytest.mark.parametrize("content", ["-----BEGIN X-----\neyJ\n-----END X-----", "eyJ" * 200, "e" * 5000, "e/" * 300])
def test_the_content_of_a_file_in_place_of_its_name(content: str) -> None:
    for name in ("REGISTRY__CREDENTIALS", "KAFKA__PROPERTIES_FILES__sasl.password"):
        assert faults(Settings, **{name: content})[f"ADAPTER_{name}"] == (
            "holds the content: name the file that has it; write for example /run/secrets/name"
            if name == "REGISTRY__CREDENTIALS"
            else "holds the content: name the file that has it; "
            'write for example {"sasl.password": "/run/secrets/kafka-password"}'
        )


def test_a_prefix_that_no_topic_can_have_is_told_as_such() -> None:
    found = faults(Settings, TOPICS__PREFIX="staging/")["ADAPTER_TOPICS__PREFIX"]
    assert found == "is not a start of a topic name; write for example staging."


def test_what_is_no_file_and_what_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    found = faults(Settings, SCHEMAS=str(file), REGISTRY__CREDENTIALS=str(tmp_path))
    assert found["ADAPTER_SCHEMAS"].startswith("does not name a folder;")
    assert found["ADAPTER_REGISTRY__CREDENTIALS"].startswith("does not name a file;")
    missing = tmp_path / "missing"
    found = faults(Settings, SCHEMAS=str(missing), REGISTRY__CREDENTIALS=str(missing))
    assert found["ADAPTER_SCHEMAS"].startswith("does not name a folder (No such file")
    assert found["ADAPTER_REGISTRY__CREDENTIALS"].startswith("does not name a file (No such file")


def test_a_folder_of_schemas_that_is_another_folder(tmp_path: Path) -> None:
    assert faults(Settings, SCHEMAS=str(tmp_path))["ADAPTER_SCHEMAS"] == (
        "names a folder that holds no avro/ and no xsd/; write for example /opt/schemas"
    )
    (tmp_path / "avro").mkdir()
    assert faults(Settings, SCHEMAS=str(tmp_path))["ADAPTER_SCHEMAS"].startswith("names a folder that holds no xsd/;")


def test_a_folder_that_may_not_be_entered(tmp_path: Path) -> None:
    inside = tmp_path / "closed" / "inside"
    inside.mkdir(parents=True)
    with shut(inside.parent):
        found = faults(Settings, SCHEMAS=str(inside), REGISTRY__CREDENTIALS=str(inside / "file"))
    assert "may not enter" in found["ADAPTER_SCHEMAS"]
    assert "may not enter" in found["ADAPTER_REGISTRY__CREDENTIALS"]
    with shut(inside):
        assert "may not enter" in faults(Settings, SCHEMAS=str(inside))["ADAPTER_SCHEMAS"]


def test_a_value_that_is_no_text() -> None:
    for name in ("SUPPLIER__TIME_ZONE", "SUPPLIER__BUYER_IDENTIFIER", "KAFKA__PROPERTIES__CLIENT_ID"):
        assert faults(Settings, **{name: "SP\udcff"}) == {f"ADAPTER_{name}": "is not UTF-8 text"}
    assert (
        "does not name a file" in faults(Settings, REGISTRY__CREDENTIALS="/na\udcffve")["ADAPTER_REGISTRY__CREDENTIALS"]
    )


@pytest.mark.parametrize("variable", [row.variable for row in describe()])
def test_a_wrong_value_is_one_fault_among_others_whatever_the_setting(variable: str) -> None:
    assert "ADAPTER_UNHEARD_OF" in faults(Settings, UNHEARD_OF="1", **{variable.removeprefix("ADAPTER_"): "-1"})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "should be greater than or equal to 0.001; write for example 20"),
        ("20/s", "is not a number; write for example 20"),
    ],
)
def test_what_is_no_rate(value: str, told: str) -> None:
    assert faults(Settings, SUPPLIER__MAX_CALLS_PER_SECOND=value) == {"ADAPTER_SUPPLIER__MAX_CALLS_PER_SECOND": told}


@pytest.mark.parametrize(
    "name", ["SUPPLIER__ACCEPTED_CODES", "SERVER__ALLOWED_NETWORKS", "KAFKA__PROPERTIES", "SUPPLIER__DOUBT_LIMITS"]
)
def test_json_that_is_nested_beyond_reason(name: str) -> None:
    assert "JSON" in faults(Settings, **{name: "[" * 50_000})[f"ADAPTER_{name}"]


def test_a_misspelt_name_is_told_the_nearest_one() -> None:
    found = faults(Cluster, SUPPLIER__BUYER_IDENTIFER="x", SUPPLIER="x", GALAXY="x", kafka__group_id="x")
    assert found["ADAPTER_SUPPLIER__BUYER_IDENTIFER"] == (
        "is not a setting; did you mean ADAPTER_SUPPLIER__BUYER_IDENTIFIER?"
    )
    assert "is a section" in found["ADAPTER_SUPPLIER"]
    assert "adapter settings" in found["ADAPTER_GALAXY"]
    assert "ADAPTER_KAFKA__GROUP_ID" in found["ADAPTER_kafka__group_id"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("KAFKA__SECURITY_PROTOCOL", "KAFKA__PROPERTIES__SECURITY_PROTOCOL"),
        ("KAFKA_SSL_CA_LOCATION", "KAFKA__PROPERTIES__SSL_CA_LOCATION"),
        ("KAFKA__SASL_PASSWORD", "KAFKA__PROPERTIES_FILES__SASL_PASSWORD"),
        ("KAFKA__PROPERTEIS__SECURITY_PROTOCOL", "KAFKA__PROPERTIES__SECURITY_PROTOCOL"),
        ("KAFKA__PROPERTIES_FILE__SASL_PASSWORD", "KAFKA__PROPERTIES_FILES__SASL_PASSWORD"),
        ("SUPPLIER__SOAP_ACTION__AddFaultReport", "SUPPLIER__SOAP_ACTIONS__AddFaultReport"),
    ],
)
def test_a_misspelt_name_of_one_entry_is_told_with_its_entry(written: str, meant: str) -> None:
    assert faults(Settings, **{written: "x"})[f"ADAPTER_{written}"].endswith(f"did you mean ADAPTER_{meant}?")


def test_variables_that_kubernetes_makes_for_a_service_are_no_fault() -> None:
    links = {
        "ADAPTER_SERVICE_HOST": "10.0.0.1",
        "ADAPTER_SERVICE_PORT": "9464",
        "ADAPTER_SERVICE_PORT_METRICS": "9464",
        "ADAPTER_PORT": "tcp://10.0.0.1:9464",
        "ADAPTER_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "ADAPTER_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    assert load(Settings, LEAST | links) == load(Settings, LEAST)
    assert "ADAPTER_PORT" in faults(Settings, PORT="9464")


def test_white_space_around_a_value_counts_for_nothing() -> None:
    # A Secret made with `echo` ends with a line end, a file of variables from Windows has one more sign.
    read = loaded(SUPPLIER__BUYER_IDENTIFIER=" SPDEV1\r\n", SUPPLIER__BASE_URL="https://supplier.example/x/\n")
    assert read.supplier.buyer_identifier == "SPDEV1"
    assert read.supplier.base_url == "https://supplier.example/x"
    assert loaded(SUPPLIER__ENVIRONMENT=" ") == loaded()


@pytest.mark.parametrize("value", ['"SPDEV1"', "'SPDEV1'", '""'])
@pytest.mark.parametrize("name", ["SUPPLIER__BUYER_IDENTIFIER", "KAFKA__PROPERTIES__CLIENT_ID", "SUPPLIER__TLS__KEY"])
def test_a_value_in_quotes_is_told_as_such(name: str, value: str) -> None:
    # `docker run --env-file` and Kubernetes leave quotes as they are; a shell takes them off.
    assert "quotes" in faults(Settings, **{name: value})[f"ADAPTER_{name}"]


def test_an_environment_that_does_not_exist_is_one_fault() -> None:
    files = dict.fromkeys(("SUPPLIER__TLS__CERTIFICATE", "SUPPLIER__TLS__KEY"), __file__)
    assert set(faults(Settings, SUPPLIER__BASE_URL="", SUPPLIER__ENVIRONMENT="CFSIT", **files)) == {
        "ADAPTER_SUPPLIER__ENVIRONMENT"
    }


@pytest.mark.parametrize(
    "value",
    [
        "SASL_SSL://kafka:9092",
        "http://kafka:9092",
        "k:1;k:2",
        "k:1 k:2",
        "k:65536",
        "k:0",
        '["k:1"]',
        ",",
        "k:1:2",
        "k:",
    ],
)
def test_what_is_no_list_of_brokers(value: str) -> None:
    found = faults(Cluster, KAFKA__BOOTSTRAP_SERVERS=value)["ADAPTER_KAFKA__BOOTSTRAP_SERVERS"]
    assert "host:port" in found


@pytest.mark.parametrize("value", ["k", "k-1.example:9092, k_2:9093 ,", "10.0.0.1:1", "[2001:db8::1]:9092", "[::1]"])
def test_what_is_a_list_of_brokers(value: str) -> None:
    assert loaded(KAFKA__BOOTSTRAP_SERVERS=value).kafka.bootstrap_servers == value


def test_an_empty_variable_counts_as_not_set() -> None:
    assert loaded(SUPPLIER__ENVIRONMENT="", WORKER__RETRY_MAX="", KAFKA__PROPERTIES="") == loaded()


def test_every_default_can_be_written_as_it_is_shown() -> None:
    """The list of settings tells the truth about defaults, and in words that `load` reads."""
    shown = {row.variable: row.default for row in describe() if row.default}
    assert load(Settings, LEAST | shown) == load(Settings, LEAST)


def test_the_page_of_settings_is_the_one_that_is_generated() -> None:
    """After a change: adapter settings --markdown > docs/settings.md"""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == markdown()


def test_every_setting_says_what_it_means() -> None:
    assert [row.variable for row in describe() if len(row.meaning) < 10 or row.type == ""] == []


def test_a_command_needs_only_the_sections_it_uses() -> None:
    assert load(Cluster, {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": "k:1"}).kafka.bootstrap_servers == "k:1"
    assert load(Vocabulary, {"ADAPTER_REGISTRY__URL": "http://r:1/"}).registry.url == "http://r:1"
    with pytest.raises(Stop, match="ADAPTER_REGISTRY__URL"):
        load(Bus, {"ADAPTER_KAFKA__BOOTSTRAP_SERVERS": "k:1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", timedelta(seconds=10)),
        ("1.5", timedelta(seconds=1.5)),
        ("500ms", timedelta(milliseconds=500)),
        ("10s", timedelta(seconds=10)),
        (" 2 m ", timedelta(minutes=2)),
        ("3h", timedelta(hours=3)),
        ("7d", timedelta(days=7)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


def test_the_time_that_connections_are_kept_may_be_zero_as_others_may_not() -> None:
    assert loaded(SUPPLIER__KEEP_ALIVE="0s").supplier.keep_alive == timedelta(0)
    assert faults(Settings, SUPPLIER__CONNECT_TIMEOUT="0s").keys() == {"ADAPTER_SUPPLIER__CONNECT_TIMEOUT"}


@pytest.mark.parametrize(
    "text", ["", "s", "0", "0ms", "-1s", "1 week", "1e3", "\u0661s", "9" * 30 + "d", "365001d", "9" * 400, "nan"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("64KiB", 65536), ("4MiB", 4194304), ("1.5 kB", 1500), ("2gib", 2147483648)]
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "MiB", "1 furlong", "0.1", "9" * 400, "9" * 30 + "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("name", "least", "most", "wrong"),
    [
        ("KAFKA__TRANSACTION_TIMEOUT", "1s", "15m", ["1ms", "20m"]),
        ("KAFKA__SESSION_TIMEOUT", "1s", "30m", ["1ms", "31m"]),
        ("TOPICS__MAX_MESSAGE_BYTES", "1KiB", "512MiB", ["100", "1GiB", "3GiB"]),
        ("TOPICS__PARTITIONS", "1", "100000", ["100001", "9" * 30]),
        ("TOPICS__REPLICATION_FACTOR", "1", "10000", ["10001", "9" * 30]),
        ("SUPPLIER__TOTAL_TIMEOUT", "1ms", "1h", ["0.1ms", "2d"]),
        ("SERVER__PUBLISH_TIMEOUT", "10ms", "1h", ["1ms", "30d"]),
    ],
)
def test_what_kafka_or_its_client_would_refuse(name: str, least: str, most: str, wrong: list[str]) -> None:
    for value in wrong:
        assert faults(Settings, **{name: value})[f"ADAPTER_{name}"] == f"must be between {least} and {most}"
    for value in (least, most):  # what follows from them for other settings is told meanwhile
        assert f"ADAPTER_{name}" not in faults(Settings, **{name: value}, WORKER__RETRY_MAX="soon")
    (meaning,) = (row.meaning for row in describe() if row.variable == f"ADAPTER_{name}")
    assert meaning.endswith(f" Between {least} and {most}.")


@pytest.mark.parametrize(("name", "value"), [("WORKER__RETRY_MAX", "30000"), ("WORKER__BREAKER_PROBE", "5000")])
def test_milliseconds_written_as_seconds_do_not_make_commands_wait_for_hours(name: str, value: str) -> None:
    assert faults(Settings, **{name: value})[f"ADAPTER_{name}"] == "must be between 1ms and 1h"


def test_librdkafka_properties_from_json_and_single_variables() -> None:
    kafka = loaded(
        KAFKA__PROPERTIES='{"client.id": "a", "socket.keepalive.enable": true, "linger.ms": 5}',
        KAFKA__PROPERTIES__CLIENT_ID="b",
        **{"KAFKA__PROPERTIES__ssl.ca.location": "/ca.pem"},
    ).kafka
    assert kafka.client() == {
        "bootstrap.servers": "kafka:9092",
        "client.id": "b",
        "linger.ms": "5",
        "reconnect.backoff.max.ms": "1000",
        "socket.keepalive.enable": "true",
        "ssl.ca.location": "/ca.pem",
    }


def test_the_log_level_of_librdkafka_keeps_its_underscore() -> None:
    for variables in ({"KAFKA__PROPERTIES__LOG_LEVEL": "7"}, {"KAFKA__PROPERTIES": '{"log_level": 7}'}):
        assert loaded(**variables).kafka.client()["log_level"] == "7"


def test_a_secret_property_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p w\n")
    kafka = loaded(KAFKA__PROPERTIES_FILES__SASL_PASSWORD=str(secret)).kafka
    assert kafka.client()["sasl.password"] == "p w"
    secret.write_text("p w\r\n", encoding="utf-8-sig")  # as Windows' editors do
    assert kafka.client()["sasl.password"] == "p w"
    secret.unlink()
    with pytest.raises(Stop, match=r"sasl\.password: .*password can't be read"):
        kafka.client()


@pytest.mark.parametrize(
    "name",
    [
        *("sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "ssl.keystore.pem"),
        *("sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem"),
    ],
)
def test_a_secret_property_is_refused_as_a_variable(name: str) -> None:
    found = faults(Cluster, **{f"KAFKA__PROPERTIES__{name}": "p"})
    assert "PROPERTIES_FILES" in found["ADAPTER_KAFKA__PROPERTIES"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("socket.timeout.ms", "10s"), ("queued.max.messages.kbytes", "8 MiB"), ("fetch.max.bytes", "1_000")],
)
def test_a_number_of_librdkafka_has_no_unit(name: str, value: str) -> None:
    # It would take the digits in front, 10 milliseconds.
    assert name in faults(Cluster, **{f"KAFKA__PROPERTIES__{name}": value})["ADAPTER_KAFKA__PROPERTIES"]
    loaded(KAFKA__PROPERTIES='{"linger.ms": 0.5, "metadata.max.age.ms": "-1", "client.id": "10s"}')


@pytest.mark.parametrize("name", ["SASL_MECHANISM", "SASL_MECHANISMS"])
def test_tokens_without_a_source_are_refused(name: str) -> None:
    # librdkafka would wait for them without a word.
    mechanism = {f"KAFKA__PROPERTIES__{name}": "OAUTHBEARER"}
    assert "set sasl.oauthbearer.method to oidc" in faults(Cluster, **mechanism)["ADAPTER_KAFKA__PROPERTIES"]
    loaded(**mechanism, KAFKA__PROPERTIES__SASL_OAUTHBEARER_METHOD="oidc")
    loaded(**mechanism, KAFKA__PROPERTIES__ENABLE_SASL_OAUTHBEARER_UNSECURE_JWT="true")


@pytest.mark.parametrize(
    "name",
    ["enable.auto.commit", "isolation.level", "partitioner", "group.id", "transactional.id", "default.topic.config"],
)
def test_properties_the_guarantees_rest_on_are_refused(name: str) -> None:
    assert name in faults(Cluster, **{f"KAFKA__PROPERTIES__{name}": "x"})["ADAPTER_KAFKA__PROPERTIES"]


def test_a_supplier_has_one_address_and_an_encrypted_one(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    assert "keep one" in faults(Settings, SUPPLIER__ENVIRONMENT="cfsit")["ADAPTER_SUPPLIER__BASE_URL"]
    assert "ALLOW_PLAINTEXT" in faults(Settings, SUPPLIER__BASE_URL="http://s")["ADAPTER_SUPPLIER__BASE_URL"]
    assert loaded(SUPPLIER__BASE_URL="http://s", SUPPLIER__ALLOW_PLAINTEXT="true").supplier.base_url == "http://s"
    assert "is missing" in faults(Settings, SUPPLIER__TLS__CERTIFICATE=str(pem))["ADAPTER_SUPPLIER__TLS__KEY"]
    assert "is missing" in faults(Settings, SUPPLIER__TLS__KEY=str(pem))["ADAPTER_SUPPLIER__TLS__CERTIFICATE"]
    found = faults(Settings, SUPPLIER__BASE_URL="", SUPPLIER__ENVIRONMENT="production")
    assert "client certificate" in found["ADAPTER_SUPPLIER__TLS__CERTIFICATE"]
    files = {"SUPPLIER__TLS__CERTIFICATE": str(pem), "SUPPLIER__TLS__KEY": str(pem)}
    assert loaded(SUPPLIER__BASE_URL="", SUPPLIER__ENVIRONMENT="production", **files).supplier.tls.key == pem


@pytest.mark.parametrize(
    "url",
    [
        "supplier",
        "supplier:8443",
        "ftp://s",
        "https://",
        "https:///path",
        "https://u:p@s",
        "https://u@s",
        "https://:p@s",
        "https://s?a",
        "https://s:x",
        "http://s t",
        "http://s\tt",
        "http://s/a b",
        "http://s/a\u200bb",
    ],
)
@pytest.mark.parametrize("setting", ["SUPPLIER__BASE_URL", "SUPPLIER__PROXY__URL", "REGISTRY__URL"])
def test_what_is_no_address(setting: str, url: str) -> None:
    found = faults(Settings, **{setting: url})
    assert set(found) == {f"ADAPTER_{setting}"}
    assert "not encrypted" not in found[f"ADAPTER_{setting}"]
    assert "u:p" not in found[f"ADAPTER_{setting}"]


@pytest.mark.parametrize(
    "listed",
    [
        {"SERVER__ALLOWED_NETWORKS": ","},
        {"SERVER__ALLOWED_SUBJECTS": " ; ;"},
        {"SERVER__TRUSTED_PROXIES": ", ,"},
        {"SERVER__ACCEPTED_BUYERS": ","},
    ],
    ids=lambda listed: next(iter(listed)),
)
def test_a_list_that_names_nothing_is_not_taken_for_none(listed: dict[str, str]) -> None:
    (setting,) = listed
    assert faults(Settings, **listed)[f"ADAPTER_{setting}"].startswith("names nothing; unset it if nothing is meant")


def test_of_several_addresses_of_a_registry_none_may_be_empty() -> None:
    assert set(faults(Settings, REGISTRY__URL="http://a,")) == {"ADAPTER_REGISTRY__URL"}
    assert loaded(REGISTRY__URL="http://a:1/, http://b:2 ").registry.url == "http://a:1,http://b:2"


@pytest.mark.parametrize("url", ["https://proxy:3128", "socks5://proxy:3128"])
def test_a_proxy_is_spoken_to_in_plain_http(url: str) -> None:
    assert "http://" in faults(Settings, SUPPLIER__PROXY__URL=url)["ADAPTER_SUPPLIER__PROXY__URL"]


@pytest.mark.parametrize("url", ["http://supplier:80", "HTTP://supplier:80"])
def test_a_base_url_without_tls_has_to_be_allowed_and_is_not_tunnelled(url: str) -> None:
    assert "not encrypted" in faults(Settings, SUPPLIER__BASE_URL=url)["ADAPTER_SUPPLIER__BASE_URL"]
    allowed = {"SUPPLIER__BASE_URL": url, "SUPPLIER__ALLOW_PLAINTEXT": "true"}
    assert loaded(**allowed).supplier.base_url == url
    found = faults(Settings, **allowed, SUPPLIER__PROXY__URL="http://proxy:3128")
    assert "https://" in found["ADAPTER_SUPPLIER__PROXY__URL"]


@pytest.mark.parametrize("host", ["gw..supplier.example", ".example", ".", "a" * 64, f"gw.{'a' * 64}.example"])
@pytest.mark.parametrize("setting", ["SUPPLIER__BASE_URL", "SUPPLIER__PROXY__URL", "REGISTRY__URL"])
def test_a_host_that_no_name_server_can_be_asked_for_is_told(setting: str, host: str) -> None:
    scheme = "https" if setting == "SUPPLIER__BASE_URL" else "http"
    found = faults(Settings, **{setting: f"{scheme}://{host}:8081"})
    assert set(found) == {f"ADAPTER_{setting}"}
    assert "63 characters" in found[f"ADAPTER_{setting}"]


@pytest.mark.parametrize("host", ["supplier.example.", "a" * 63, "m\u00fcnchen.example", "127.0.0.1", "[2001:db8::1]"])
def test_a_host_that_can_be_asked_for_is_an_address(host: str) -> None:
    assert loaded(SUPPLIER__BASE_URL=f"https://{host}:8443/x").supplier.base_url == f"https://{host}:8443/x"


def test_settings_of_one_operation_keep_its_name() -> None:
    supplier = loaded(
        SUPPLIER__DOUBT_LIMITS='{"ReserveAppointment": "30s"}',
        SUPPLIER__DOUBT_LIMITS__AddFaultReport="2h",
        SUPPLIER__SOAP_ACTIONS__AddFaultReport="urn:add",
    ).supplier
    assert supplier.doubt_limits == {"ReserveAppointment": timedelta(seconds=30), "AddFaultReport": timedelta(hours=2)}
    assert supplier.soap_actions == {"AddFaultReport": "urn:add"}


def test_a_list_of_which_several_items_are_wrong_is_told_once() -> None:
    with pytest.raises(Stop) as stop:
        load(Settings, LEAST | {"ADAPTER_SUPPLIER__ACCEPTED_CODES": "a,b"})
    assert len(stop.value.problems) == 1


def test_what_a_supplier_sends_fits_the_topics() -> None:
    found = faults(Settings, TOPICS__MAX_MESSAGE_BYTES="1MiB")
    assert {name for name, text in found.items() if "half" in text} == {
        "ADAPTER_SERVER__MAX_BODY_BYTES",
        "ADAPTER_SUPPLIER__MAX_REPLY_BYTES",
    }


@pytest.mark.parametrize("hidden", ["\x01", "\u200b"])
@pytest.mark.parametrize("name", ["BUYER_IDENTIFIER", "API_VERSION", "SELLER_IDENTIFIER", "RESELLER_ID"])
def test_a_hidden_character_in_a_text_of_every_request_is_refused(name: str, hidden: str) -> None:
    told = faults(Settings, **{f"SUPPLIER__{name}": f"SP{hidden}DEV1"})[f"ADAPTER_SUPPLIER__{name}"]
    assert f"holds a character that cannot be seen (U+{ord(hidden):04X})" in told


@pytest.mark.parametrize("value", ["urn:a\r\nx-evil: 1", "urn:\u20ac", "urn:a\x7f"])
@pytest.mark.parametrize("name", ["SUPPLIER__SOAP_ACTIONS__AddFaultReport", "SUPPLIER__CONTENT_TYPE"])
def test_what_a_header_cannot_carry(name: str, value: str) -> None:
    assert "header" in faults(Settings, **{name: value})[f"ADAPTER_{name}"]


def test_a_soap_action_is_written_without_its_quotes() -> None:
    name = "SUPPLIER__SOAP_ACTIONS__AddFaultReport"
    assert "quotes" in faults(Settings, **{name: '"urn:add"'})[f"ADAPTER_{name}"]


def test_the_journal_outlives_the_commands_twice() -> None:
    found = faults(Cluster, TOPICS__RETENTION__COMMANDS="8d")
    assert "twice" in found["ADAPTER_TOPICS__RETENTION__JOURNAL"]


def test_the_prefix_is_part_of_every_topic_name() -> None:
    names = loaded(TOPICS__PREFIX="staging.").topics.names()
    assert (names.commands, names.dead_letters) == ("staging.fault.commands", "staging.fault.dead-letters")
    assert "249" in faults(Cluster, TOPICS__PREFIX="p" * 100, TOPICS__EVENTS="e" * 200)["ADAPTER_TOPICS__EVENTS"]


def test_time_limits_that_contradict_each_other() -> None:
    found = faults(Settings, SUPPLIER__READ_TIMEOUT="50s", WORKER__RETRY_FIRST="1m", WORKER__WINDOW_BYTES="1MiB")
    assert set(found) == {
        "ADAPTER_SUPPLIER__READ_TIMEOUT",
        "ADAPTER_WORKER__RETRY_FIRST",
        "ADAPTER_WORKER__WINDOW_BYTES",
    }


def test_limits_that_just_fit_each_other_do_not_contradict() -> None:
    found = loaded(
        SUPPLIER__CONNECT_TIMEOUT="40s",
        SUPPLIER__WRITE_TIMEOUT="40s",
        SUPPLIER__READ_TIMEOUT="40s",
        SUPPLIER__TOTAL_TIMEOUT="40s",
        WORKER__STOP_TIMEOUT="41s",
        WORKER__RETRY_FIRST="20s",
        WORKER__RETRY_MAX="20s",
        WORKER__WINDOW_BYTES="4MiB",
        SUPPLIER__MAX_REPLY_BYTES="2MiB",
        SERVER__MAX_BODY_BYTES="2MiB",
        SERVER__MAX_BYTES_IN_FLIGHT="2MiB",
        TOPICS__MAX_MESSAGE_BYTES="4MiB",
        TOPICS__RETENTION__COMMANDS="3d",
        TOPICS__RETENTION__JOURNAL="6d",
        TOPICS__PREFIX="p" * 49,
        TOPICS__EVENTS="e" * 200,
    )
    assert found.supplier.read_timeout == found.supplier.total_timeout


def test_a_server_takes_no_body_that_does_not_fit_what_it_may_hold() -> None:
    assert set(faults(Settings, SERVER__MAX_BODY_BYTES="2MiB", SERVER__MAX_BYTES_IN_FLIGHT="1MiB")) == {
        "ADAPTER_SERVER__MAX_BYTES_IN_FLIGHT"
    }


def test_a_semicolon_that_belongs_to_a_distinguished_name_does_not_end_it() -> None:
    server = loaded(SERVER__ALLOWED_SUBJECTS=r"CN=gate\;way,O=Supplier; CN=ends with\\;gateway.example; ").server
    assert server.allowed_subjects == {r"CN=gate\;way,O=Supplier", r"CN=ends with\\", "gateway.example"}


def test_a_list_of_subjects_needs_somebody_who_shows_certificates() -> None:
    listed = {"SERVER__ALLOW_PLAINTEXT": "true", "SERVER__ALLOWED_SUBJECTS": "CN=gateway"}
    assert "TRUSTED_PROXIES" in faults(Settings, **listed)["ADAPTER_SERVER__ALLOWED_SUBJECTS"]
    assert loaded(**listed, SERVER__TRUSTED_PROXIES="192.0.2.0/24").server.allowed_subjects == {"CN=gateway"}


def test_a_stop_may_not_cut_calls_off() -> None:
    assert set(faults(Settings, SUPPLIER__TOTAL_TIMEOUT="40s", WORKER__STOP_TIMEOUT="40s")) == {
        "ADAPTER_WORKER__STOP_TIMEOUT"
    }


def test_credentials_for_a_proxy_need_the_proxy(tmp_path: Path) -> None:
    secret = tmp_path / "proxy"
    secret.write_text("user:password")
    given = {"SUPPLIER__PROXY__CREDENTIALS": str(secret)}
    assert "is missing" in faults(Settings, **given)["ADAPTER_SUPPLIER__PROXY__URL"]
    assert loaded(**given, SUPPLIER__PROXY__URL="http://proxy:3128").supplier.proxy.credentials == secret
