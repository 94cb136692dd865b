"""What is said of a machine's way through its boot: events in, lines out."""

import json

import pytest

from installer.boot.serve import reports
from installer.boot.serve.journey import (
    Event,
    Journeys,
    Leased,
    Offered,
    Proxied,
    Refused,
    Reported,
    Site,
    Step,
    Transfer,
)

MAC, IP = "52:54:00:00:00:07", "192.0.2.77"
URL = "http://192.0.2.1:8080"
SITE = Site({MAC: "rack7"}, URL, "undionly.kpxe", "ipxe.efi", answers=True, reports=True)
PATIENCE = 60.0


def tftp(step: Step, name: str) -> Transfer:
    return Transfer(IP, "", step, name, "TFTP", "done")


def http(step: Step, name: str, size: int = 2048) -> Transfer:
    return Transfer(IP, MAC, step, name, "HTTP", "done", size, size, 0.5)


def missing(step: Step, name: str) -> Transfer:
    return Transfer(IP, MAC, step, name, "HTTP", "missing")


def said(**fields: object) -> Reported:
    (event,) = reports.parse(json.dumps(fields).encode())
    return Reported(IP, MAC, event)


def told(*events: tuple[float, Event | None], site: Site = SITE) -> list[str]:
    """Feed events (None: time passes); return the lines as `step state text`."""
    journeys = Journeys(site, PATIENCE)
    lines = []
    for time, event in events:
        found = journeys.tick(time) if event is None else journeys.feed(time, event)
        assert all((line.mac, line.host, line.time) == (MAC, "rack7", time) for line in found)
        lines += [f"{line.step} {line.state}: {line.text}" for line in found]
    return lines


LEASED_BIOS = f"dhcp done: {IP} for the firmware (BIOS), which is to fetch undionly.kpxe by TFTP"
LEASED_IPXE = f"dhcp done: {IP} for iPXE, which is to fetch {URL}/ipxe/boot.ipxe"


def test_a_whole_way() -> None:
    assert told(
        (0, Offered(MAC, "BIOS")),
        (3, Leased(MAC, IP, "BIOS", "rack7")),
        (4, tftp("loader", "undionly.kpxe")),
        (6, Leased(MAC, IP, "iPXE", "rack7")),
        (7, http("script", "ipxe/boot.ipxe")),
        (7, http("script", "ipxe/mac-52-54-00-00-00-07.ipxe")),
        (9, http("kernel", "image/vmlinuz")),
        (10, http("initrd", "image/initrd")),
        (14, Offered(MAC, "other")),
        (14, Leased(MAC, IP, "other")),
        (20, http("root", "image/root.squashfs")),
        (30, missing("answers", "answers/rack7.json")),
        (30, missing("answers", "answers/guest.toml")),
        (30, http("answers", "answers/default.toml")),
        (31, said(kind="observed", version="0.1.0")),
        (32, said(kind="planned")),
        (33, said(kind="step-started", step="unpack", title="unpack it", number=3, count=9)),
        (34, said(kind="step-progress", step="unpack", done=1, total=10)),
        (44, said(kind="step-progress", step="unpack", done=5, total=10)),
        (50, said(kind="step-finished", step="unpack", seconds=17)),
        (51, said(kind="message", level="info", text="so so")),
        (52, said(kind="message", level="warning", text="no clock")),
        (60, said(kind="finished", seconds=27.4)),
        (600, None),
    ) == [
        LEASED_BIOS,
        "loader done: undionly.kpxe by TFTP",
        LEASED_IPXE,
        "script done: ipxe/boot.ipxe 2.00 KiB in 0.5 s by HTTP",
        "script done: ipxe/mac-52-54-00-00-00-07.ipxe 2.00 KiB in 0.5 s by HTTP",
        "kernel done: image/vmlinuz 2.00 KiB in 0.5 s by HTTP",
        "initrd done: image/initrd 2.00 KiB in 0.5 s by HTTP",
        f"linux done: the kernel runs; {IP} for its initrd",
        "root done: image/root.squashfs 2.00 KiB in 0.5 s by HTTP",
        (
            "answers done: answers/default.toml 2.00 KiB in 0.5 s by HTTP, "
            "after 2 names that are not there"
        ),
        "agent done: netinstall 0.1.0 looked at the machine",
        "agent done: everything is decided, nothing changed yet",
        "agent done: step 3 of 9, unpack: unpack it",
        "agent progress: unpack: 50 %",
        "agent progress: warning: no clock",
        "agent installed: installed in 27 s",
    ]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([Offered(MAC, "UEFI")], "it was offered an address and did not take it: another DHCP"),
        (
            [Leased(MAC, IP, "BIOS")],
            "it has an address and has not fetched undionly.kpxe: a firewall for UDP port 69",
        ),
        ([Leased(MAC, IP, "UEFI")], "it has an address and has not fetched ipxe.efi"),
        (
            [Leased(MAC, IP, "UEFI HTTP")],
            f"it has an address and never asked for {URL}/ipxe.efi: firmware that allows https",
        ),
        (
            [Leased(MAC, IP, "iPXE")],
            f"iPXE has an address and never asked for {URL}/ipxe/boot.ipxe: a firewall",
        ),
        ([Proxied(MAC, "BIOS", IP)], "it has an address and has not fetched undionly.kpxe"),
        (
            [Leased(MAC, IP, "UEFI"), tftp("loader", "ipxe.efi")],
            "it has the loader, which never came back: Secure Boot refused it",
        ),
        ([http("script", "ipxe/boot.ipxe")], "it has the script and did not ask for the kernel"),
        ([http("kernel", "vmlinuz")], "it has the kernel and did not go on: too little memory"),
        ([http("initrd", "initrd")], "the kernel should run, and was not heard of since"),
        (
            [http("initrd", "initrd"), Leased(MAC, IP, "other")],
            "the kernel runs, and was not heard of since: no driver or no link",
        ),
        ([http("root", "root.squashfs")], "it has its root and the agent was not heard of"),
        ([http("answers", "default.toml")], "it has its answer file and reports nothing"),
        (
            [missing("answers", "answers/a.toml"), missing("answers", "answers/b.toml")],
            "it asked for answers/a.toml, answers/b.toml, and none is there: make default.toml",
        ),
        (
            [said(kind="step-started", step="unpack", title="unpack it", number=3, count=9)],
            "the agent reports nothing more since: step 3 of 9, unpack: unpack it",
        ),
        (
            [Transfer(IP, MAC, "kernel", "vmlinuz", "HTTP", "begun", 1024, 4096)],
            "vmlinuz stopped at 1.00 KiB: the cable, or the machine was switched off",
        ),
    ],
)
def test_where_a_machine_hangs_is_said_once(events: list[Event], why: str) -> None:
    # a name for those that never say it themselves
    before = [(0.0, event) for event in events]
    found = told(*before, (59, None), (60, None), (61, None), (500, None))
    hangs = [line for line in found if " hangs: " in line]
    assert len(hangs) == 1
    assert f" hangs: nothing new for 1 min 00 s: {why}" in hangs[0]


def test_asking_for_what_is_not_there_is_no_life() -> None:
    found = told(
        (0, http("script", "ipxe/boot.ipxe")),
        *((2.0**n, missing("kernel", "image/vmlinuz")) for n in range(1, 6)),
        (61, None),
        (62, missing("kernel", "image/vmlinuz")),
        (63, http("kernel", "image/vmlinuz")),
        (64, None),
    )
    assert found[1:] == [
        "kernel missing: image/vmlinuz is not there (HTTP)",
        (
            "script hangs: nothing new for 1 min 01 s: it asked 5 times for image/vmlinuz, "
            "which is not there"
        ),
        "kernel done: image/vmlinuz 2.00 KiB in 0.5 s by HTTP",
    ]


def test_the_summary_says_why_a_machine_hangs() -> None:
    journeys = Journeys(SITE, PATIENCE)
    journeys.feed(0, http("script", "ipxe/boot.ipxe"))
    journeys.feed(1, missing("kernel", "image/vmlinuz"))
    journeys.tick(100)
    (line,) = journeys.summary()
    assert (line.step, line.state, line.time) == ("script", "hangs", 0)
    assert line.text == "it asked 1 times for image/vmlinuz, which is not there"


def test_a_download_that_goes_on_is_life() -> None:
    def at(done: int) -> Transfer:
        return Transfer(IP, MAC, "root", "root.squashfs", "HTTP", "moved", done, 1024)

    assert told((0, at(10)), (55, at(512)), (110, at(615)), (115, at(615)), (169, None)) == [
        "root progress: root.squashfs: 50 % of 1.00 KiB",
        "root progress: root.squashfs: 60 % of 1.00 KiB",
    ]
    broken = Transfer(IP, MAC, "root", "root.squashfs", "HTTP", "broken", 700, 1024)
    assert told((0, at(10)), (5, broken)) == [
        "root broken: root.squashfs broke off after 700 B of 1.00 KiB"
    ]


def test_a_download_that_the_client_did_not_want() -> None:
    begun = Transfer(IP, MAC, "root", "root.squashfs", "HTTP", "begun", 0, 1024)
    unneeded = Transfer(IP, MAC, "root", "root.squashfs", "HTTP", "unneeded", 0, 1024)
    (found,) = told((0, http("script", "x")), (1, begun), (2, unneeded), (100, None))[1:]
    assert "it has the script and did not ask for the kernel" in found


def test_by_tftp_nobody_knows_how_far_it_was() -> None:
    broken = Transfer(IP, "", "loader", "ipxe.efi", "TFTP", "broken")
    assert told((0, Leased(MAC, IP, "UEFI")), (1, broken))[1:] == [
        "loader broken: ipxe.efi broke off"
    ]


def test_a_machine_that_starts_again() -> None:
    found = told(
        (0, Leased(MAC, IP, "BIOS")),
        (1, tftp("loader", "undionly.kpxe")),
        (20, Offered(MAC, "BIOS")),
        (21, Leased(MAC, IP, "BIOS")),
    )
    assert found == [
        LEASED_BIOS,
        "loader done: undionly.kpxe by TFTP",
        "dhcp progress: start number 2: it came as far as loader before (undionly.kpxe by TFTP)",
        LEASED_BIOS,
    ]


def test_a_failed_installation_waits_for_nobody() -> None:
    problem = {"code": "disk.none", "what": "no disk matches", "where": "", "hint": ""}
    failed = said(kind="failed", step=None, exit_code=3, problems=[problem])
    assert told((0, failed), (100, None)) == ["agent failed: failed: disk.none: no disk matches"]


def test_who_does_not_boot_from_here_is_left_alone() -> None:
    assert told((0, Offered(MAC, "other")), (0, Leased(MAC, IP, "other")), (100, None)) == [
        f"dhcp done: {IP} for somebody who does not boot from here"
    ]


def test_what_dhcp_refuses_is_said_once_and_moves_nobody() -> None:
    refused = Refused(MAC, "no address is free")
    assert told((0, refused), (1, refused)) == ["dhcp refused: no address is free"]


def test_the_end_of_the_way_is_where_reports_go_elsewhere() -> None:
    silent = Site({MAC: "rack7"}, URL, "a", "b", answers=False, reports=False)
    found = told((0, http("root", "root.squashfs")), (100, None), site=silent)
    assert [line for line in found if "hangs" in line] == []


def test_an_address_that_turns_out_to_be_a_machine() -> None:
    journeys = Journeys(SITE, PATIENCE)
    journeys.feed(0, Transfer(IP, "", "script", "ipxe/boot.ipxe", "HTTP", "done", 1, 1, 0.1))
    journeys.feed(1, Leased(MAC, IP, "iPXE"))
    journeys.feed(2, tftp("loader", "undionly.kpxe"))
    (line,) = journeys.summary()
    assert (line.mac, line.ip, line.host, line.step) == (MAC, IP, "rack7", "loader")


def test_an_address_that_goes_to_another_machine() -> None:
    other = "52:54:00:00:00:08"
    journeys = Journeys(SITE, PATIENCE)
    journeys.feed(0, Leased(MAC, IP, "iPXE"))
    journeys.feed(1, Leased(other, IP, "iPXE", "web1"))
    assert journeys.mac_of(IP) == other
    assert [(line.mac, line.ip, line.host) for line in journeys.summary()] == [
        (MAC, "", "rack7"),
        (other, IP, "web1"),
    ]


def test_pixiecore_asks_for_another_machine() -> None:
    asked = Transfer("", MAC, "script", f"v1/boot/{MAC}", "HTTP", "done", 500, 500)
    assert told((0, asked), (100, None)) == [f"script done: v1/boot/{MAC} 500 B by HTTP"]
