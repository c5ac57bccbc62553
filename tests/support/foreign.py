"""What other clients than Python's can put on a topic: librdkafka's own functions, as a program in C calls them."""

import ctypes

from confluent_kafka import cimpl

_VALUE, _KEY, _TOPIC, _PARTITION, _FLAGS, _HEADERS = 4, 5, 1, 3, 7, 10  # rd_kafka_vtype_t
_COPY = 2  # RD_KAFKA_MSG_F_COPY


def put(bootstrap: str, topic: str, partition: int, *, key: bytes, value: bytes, header: tuple[bytes, bytes]) -> None:
    """A record with a header whose name may be any bytes."""
    library = ctypes.CDLL(cimpl.__file__)  # finds what the extension itself is linked with
    for maker in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, maker).restype = ctypes.c_void_p
    conf, why = ctypes.c_void_p(library.rd_kafka_conf_new()), ctypes.create_string_buffer(500)
    assert library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), why, 500) == 0, why.value
    producer = ctypes.c_void_p(library.rd_kafka_new(0, conf, why, 500))
    try:
        headers = ctypes.c_void_p(library.rd_kafka_headers_new(1))
        name, content = header
        size = ctypes.c_ssize_t
        assert library.rd_kafka_header_add(headers, name, size(len(name)), content, size(len(content))) == 0
        # fmt: off
        failed = library.rd_kafka_producev(
            producer,
            _TOPIC, ctypes.c_char_p(topic.encode()), _PARTITION, ctypes.c_int32(partition),
            _KEY, ctypes.c_char_p(key), ctypes.c_size_t(len(key)),
            _VALUE, ctypes.c_char_p(value), ctypes.c_size_t(len(value)),
            _FLAGS, _COPY, _HEADERS, headers, 0,
        )
        # fmt: on
        assert failed == 0
        assert library.rd_kafka_flush(producer, 30_000) == 0
    finally:
        library.rd_kafka_destroy(producer)
