import pytest

from adapter.core.document import admit
from adapter.core.soap import SOAP_1_1, SOAP_1_2, Blame, Fault, Message, Version, unwrap, wrap


def read(text: str) -> Message:
    return unwrap(admit(text.encode()))


def fault(text: str) -> Fault:
    message = read(text)
    assert message.fault is not None
    assert message.element is None
    return message.fault


def name(message: Message) -> str | None:
    return None if message.element is None else str(message.element.tag)


def test_what_is_wrapped_is_unwrapped() -> None:
    message = unwrap(admit(wrap(b"<a>1</a>")))
    assert (name(message), message.version, message.extra) == ("a", Version.SOAP_1_1, 0)


@pytest.mark.parametrize("version", [Version.SOAP_1_1, Version.SOAP_1_2])
def test_what_is_wrapped_for_a_version_is_of_that_version(version: Version) -> None:
    message = unwrap(admit(wrap(b"<a/>", version=version)))
    assert (name(message), message.version) == ("a", version)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("<a/>", Version.NONE),
        (f"<Envelope xmlns='{SOAP_1_1}'><Body><a xmlns=''/></Body></Envelope>", Version.SOAP_1_1),
        (
            f"<s:Envelope xmlns:s='{SOAP_1_1}'><s:Header><x/></s:Header><s:Body><a/></s:Body></s:Envelope>",
            Version.SOAP_1_1,
        ),
        (f"<e:Envelope xmlns:e='{SOAP_1_2}'><e:Body> <a/> </e:Body></e:Envelope>", Version.SOAP_1_2),
        ("<Envelope><Body><a/></Body></Envelope>", Version.OTHER),
        ("<Envelope xmlns='urn:odd'><Body><a xmlns=''/></Body></Envelope>", Version.OTHER),
    ],
)
def test_the_body_element_is_found_in_every_envelope_and_in_none(text: str, version: Version) -> None:
    message = read(text)
    assert ("a", version, 0) == (name(message), message.version, message.extra)


@pytest.mark.parametrize("inside", ["", "<s:Body/>", "<s:Body>text</s:Body>", "<s:Header/>"])
def test_an_envelope_with_nothing_in_it(inside: str) -> None:
    message = read(f"<s:Envelope xmlns:s='{SOAP_1_1}'>{inside}</s:Envelope>")
    assert (message.element, message.fault) == (None, None)


def test_further_elements_of_the_body_are_counted() -> None:
    message = read(f"<s:Envelope xmlns:s='{SOAP_1_1}'><s:Body><a/><b/><c/></s:Body></s:Envelope>")
    assert (name(message), message.extra) == ("a", 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            (
                f"<s:Fault xmlns:s='{SOAP_1_1}'><faultcode>s:Client</faultcode>"
                "<faultstring> no  such\n ticket</faultstring><detail><x>one</x><y>two</y></detail></s:Fault>"
            ),
            Fault("Client", "no such ticket", "one two"),
        ),
        (
            "<fault><faultcode>Server.Busy</faultcode><faultmessage>later</faultmessage></fault>",
            Fault("Server.Busy", "later", ""),
        ),
        ("<FAULT><FaultCode>9</FaultCode><FaultString>x</FaultString><Detail>d</Detail></FAULT>", Fault("9", "x", "d")),
        (
            (
                f"<f:Fault xmlns:f='{SOAP_1_2}'><f:Code><f:Value>f:Sender</f:Value>"
                "<f:Subcode><f:Value>m:Late</f:Value></f:Subcode></f:Code><f:Reason>"
                "<f:Text xml:lang='en'>too late</f:Text><f:Text>zu spät</f:Text></f:Reason>"
                "<f:Detail>d</f:Detail></f:Fault>"
            ),
            Fault("Sender.Late", "too late", "d"),
        ),
        ("<Fault><Code><Value>Sender</Value></Code></Fault>", Fault("Sender", "", "")),
        ("<Fault><Code><Value>Sender</Value></Code><Reason>too late</Reason></Fault>", Fault("Sender", "too late", "")),
        ("<fault/>", Fault("", "", "")),
        ("<fault><faultcode>a</faultcode><faultcode>b</faultcode></fault>", Fault("a", "", "")),
    ],
)
@pytest.mark.parametrize("envelope", ["{}", f"<e:Envelope xmlns:e='{SOAP_1_1}'><e:Body>{{}}</e:Body></e:Envelope>"])
def test_faults_of_every_form(text: str, expected: Fault, envelope: str) -> None:
    assert expected == fault(envelope.format(text))


@pytest.mark.parametrize(
    ("code", "blame"),
    [
        ("Client", Blame.CLIENT),
        ("soap:client.Authentication", Blame.CLIENT),
        ("Sender", Blame.CLIENT),
        ("Server", Blame.SERVER),
        ("SOAP-ENV:Server.x", Blame.SERVER),
        ("Receiver", Blame.SERVER),
        ("MustUnderstand", Blame.OTHER),
        ("Clientele", Blame.OTHER),
        ("401", Blame.OTHER),
        ("", Blame.OTHER),
    ],
)
def test_whose_fault_it_is(code: str, blame: Blame) -> None:
    assert blame is fault(f"<fault><faultcode>{code}</faultcode></fault>").blame
