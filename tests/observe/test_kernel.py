"""The kernel command line: its grammar, our words, and mistakes in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer.observe.kernel import FOR_THE_INITRD, KernelArguments, parse, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quiet ro\tip=dhcp\n", [("quiet", None), ("ro", None), ("ip", "dhcp")]),
        ('a="b c" d=e', [("a", "b c"), ("d", "e")]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('a=b"c d"e', [("a", 'b"c d"e')]),
        ('a="b c', [("a", "b c")]),
        ('"a b"', [("a b", None)]),
        ("a=b=c a=", [("a", "b=c"), ("a", "")]),
        ("ro -- netinstall.answers=x", [("ro", None)]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert words(text) == expected


def test_all_our_words() -> None:
    arguments, problems = parse(
        "BOOT_IMAGE=vmlinuz root=/dev/nfs ip=:::::eth0:dhcp quiet "
        'netinstall.answers="http://boot/answers of rack 3/" netinstall.report=http://log:8080/x '
        "netinstall.on_failure=reboot netinstall.failure-delay=30 netinstall.root=http://b/r.sqfs "
        "BOOTIF=01-AA-bb-cc-dd-ee-0f console=ttyS0"
    )
    assert problems == ()
    assert arguments == KernelArguments(
        answers="http://boot/answers of rack 3/",
        report="http://log:8080/x",
        on_failure="reboot",
        failure_delay=30,
        ip=":::::eth0:dhcp",
        boot_mac="aa:bb:cc:dd:ee:0f",
        others={"root": "http://b/r.sqfs"},
    )


def test_the_last_value_counts() -> None:
    arguments, _ = parse("netinstall.on-failure=shell netinstall.on_failure=poweroff")
    assert arguments.on_failure == "poweroff"


@pytest.mark.parametrize(
    ("text", "dry", "mistakes"),
    [
        ("netinstall.dry-run=1", True, 0),
        ("netinstall.dry_run", True, 0),
        ("netinstall.dry-run=0", False, 0),
        ("quiet", False, 0),
        # not understood, and all the same no reason to erase disks
        ("netinstall.dry-run=yes", True, 1),
    ],
)
def test_dry_run(text: str, dry: bool, mistakes: int) -> None:
    arguments, problems = parse(text)
    assert (arguments.dry_run, len(problems)) == (dry, mistakes)


@pytest.mark.parametrize(
    "value", ["01-52-54-00-12-34-56", "01:52:54:00:12:34:56", "52:54:00:12:34:56"]
)
def test_bootif(value: str) -> None:
    assert parse(f"BOOTIF={value}")[0].boot_mac == "52:54:00:12:34:56"


def test_all_mistakes_are_said_together() -> None:
    arguments, problems = parse(
        "netinstall.anwsers=http://x/ netinstall.frobnicate=1 netinstall.on-failure=explode "
        "netinstall.failure-delay=1h netinstall.report=ftp://u:secret@x/ BOOTIF=01-zz "
        "netinstall.answers netinstall.dry-run=yes ip=dhcp"
    )
    assert arguments == KernelArguments(dry_run=True, ip="dhcp")
    assert "\n".join(map(str, problems)) == (
        "error[arguments]: netinstall.anwsers: this name is not known\n"
        "  where: the kernel command line\n"
        "  try:   did you mean netinstall.answers?\n"
        "error[arguments]: netinstall.frobnicate: this name is not known\n"
        "  where: the kernel command line\n"
        "  try:   known are netinstall.answers, netinstall.report, netinstall.on-failure, "
        "netinstall.failure-delay, netinstall.dry-run, "
        + ", ".join(f"netinstall.{name}" for name in FOR_THE_INITRD)
        + "\n"
        "error[arguments]: netinstall.answers: it has no value\n"
        "  where: the kernel command line\n"
        "  try:   write netinstall.answers=VALUE\n"
        "error[arguments]: netinstall.report: 'ftp://***@x/' is no http(s) URL\n"
        "  where: the kernel command line\n"
        "  try:   write netinstall.report=http://SERVER/PATH\n"
        "error[arguments]: netinstall.on-failure: 'explode' is not known\n"
        "  where: the kernel command line\n"
        "  try:   write one of shell, reboot, poweroff\n"
        "error[arguments]: netinstall.failure-delay: '1h' is no number of seconds\n"
        "  where: the kernel command line\n"
        "  try:   write a number from 0 to 86400\n"
        "error[arguments]: netinstall.dry-run: 'yes' is neither 0 nor 1\n"
        "  where: the kernel command line\n"
        "  try:   write 1\n"
        "error[arguments]: BOOTIF: '01-zz' is no MAC address\n"
        "  where: the kernel command line\n"
        "  try:   write BOOTIF=01-aa-bb-cc-dd-ee-ff"
    )


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    parse(text)


@given(
    st.lists(
        st.sampled_from(
            ["netinstall.", "answers", "=", '"', " ", "BOOTIF", "01-", "--", "on_", "\0"]
        )
        | st.text(max_size=3)
    )
)
def test_any_mix_of_our_words_is_read(parts: list[str]) -> None:
    arguments, problems = parse("".join(parts))
    arguments.shown()
    for problem in problems:
        str(problem)


@given(
    st.text(alphabet=st.characters(exclude_characters='" \t\n\r\v\f', codec="ascii"), min_size=1)
)
def test_a_quoted_value_comes_back(value: str) -> None:
    assert words(f'a="x {value}" b')[0] == ("a", f"x {value}")
