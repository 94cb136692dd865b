"""The answer file's interfaces, put together with the machine's cards and leases.

What comes of it holds everything that a back end writes, and nothing that it has to decide.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from installer.decide import cards
from installer.decide.addressing import Address, Addressed, address
from installer.model.errors import Problem
from installer.model.facts import Facts, Lease, Lease6, Nic
from installer.model.network import Addressing, Bond, Bridge, Network, NetworkInterface, Vlan

_ETHERNET_MTU = 1500
_FURTHER_METRIC = 1024
"""The metric of the second default route; each further one's is higher by one."""


@dataclass(frozen=True, kw_only=True)
class Link(Addressed):
    """An interface of the installed system.

    `match` finds a card, whatever it is called; `mac` is the address that a bond or bridge takes
    over, so that a DHCP server knows the machine again. `members` are names of other links, and
    `master` is that of the bond or bridge which this one belongs to. `table` is what the answer
    file says of it, at `where`.
    """

    name: str
    table: Addressing | None
    where: str
    card: Nic | None = None
    match: Mapping[str, str] = field(default_factory=dict)
    mac: str | None = None
    members: tuple[str, ...] = ()
    master: str | None = None
    vlans: tuple[str, ...] = ()


@dataclass
class _Builder:
    """Links under construction, by name, and what was found wrong on the way."""

    network: Network
    facts: Facts
    links: dict[str, Link] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def wrong(self, what: str, where: str, hint: str) -> None:
        self.problems.append(Problem("network.described", what, where, hint))


def link_up(network: Network, facts: Facts) -> tuple[tuple[Link, ...], list[str], list[Problem]]:
    """Put everything together; return the links (members first), warnings and problems."""
    builder = _Builder(network, facts)
    for name, table, where in _created(network):
        builder.links[name] = Link(name=name, table=table, where=where)
    for index, table in enumerate(network.interfaces):
        _card(builder, table.interface, f"network.interfaces[{index}]", table)
    _connect(builder)
    if not builder.problems:
        for link in list(builder.links.values()):
            _address(builder, link.name)
    if not builder.problems:
        _agree(builder)
    if builder.problems:
        return (), _once(builder.warnings), builder.problems
    return _with_metrics(_ordered(builder.links)), _once(builder.warnings), []


def static_from_lease(
    interface: str, network: Network, facts: Facts
) -> tuple[tuple[Link, ...], list[str], list[Problem]]:
    """The one link of `mode = "static-from-lease"` without tables."""
    table = NetworkInterface.model_validate({"interface": interface, "mode": "static-from-lease"})
    builder = _Builder(network, facts)
    name = _card(builder, interface, "network.interface", table)
    if name is not None:
        builder.links[name] = replace(builder.links[name], where="network.mode")
        _address(builder, name)
    if builder.problems:
        return (), _once(builder.warnings), builder.problems
    return _with_metrics(tuple(builder.links.values())), _once(builder.warnings), []


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _created(network: Network) -> Iterator[tuple[str, Addressing, str]]:
    for index, bond in enumerate(network.bonds):
        yield bond.name, bond, f"network.bonds[{index}]"
    for index, bridge in enumerate(network.bridges):
        yield bridge.name, bridge, f"network.bridges[{index}]"
    for index, vlan in enumerate(network.vlans):
        yield vlan.link_name, vlan, f"network.vlans[{index}]"


def _card(
    builder: _Builder, wanted: str, where: str, table: NetworkInterface | None = None
) -> str | None:
    """Make a link of a card, or find the one that was made; None after a problem."""
    nic = cards.find(wanted, builder.facts, where)
    if isinstance(nic, Problem):
        builder.problems.append(nic)
        return None
    for link in builder.links.values():
        if link.card is nic:
            if table is not None:
                builder.wrong(
                    f"{wanted} is {link.name} ({nic.mac}), which {link.where} describes already",
                    where,
                    "describe each interface once",
                )
                return None
            return link.name
    name = cards.installed_name(nic, builder.facts)
    if name in builder.links:
        builder.wrong(
            f"{name} is the name of a network card ({nic.mac}), too",
            builder.links[name].where,
            "choose another name",
        )
        return None
    match = cards.match(nic, builder.facts, where)
    if isinstance(match, Problem):
        builder.problems.append(match)
        return None
    builder.links[name] = Link(name=name, table=table, where=where, card=nic, match=match)
    return name


def _connect(builder: _Builder) -> None:
    """Say of each link what it is made of; nothing is used twice, and nothing goes in a circle."""
    for name, table, where in _created(builder.network):
        match table:
            case Bond() | Bridge():
                found = [
                    _reference(builder, wanted, f"{where}.interfaces[{index}]")
                    for index, wanted in enumerate(table.interfaces)
                ]
                members = tuple(member for member in found if member is not None)
                builder.links[name] = replace(builder.links[name], members=members)
                for index, member in enumerate(found):
                    if member is not None:
                        _join(builder, name, member, f"{where}.interfaces[{index}]")
            case Vlan():
                carrier = _reference(builder, table.on, f"{where}.on")
                if carrier is not None:
                    builder.links[name] = replace(builder.links[name], members=(carrier,))
                    below = builder.links[carrier]
                    builder.links[carrier] = replace(below, vlans=(*below.vlans, name))
    for link in list(builder.links.values()):
        if _in_circle(builder.links, link.name):
            # the others of the circle are no news
            builder.wrong(
                f"{link.name} is made of itself", link.where, "let each be made of others only"
            )
            break
        if link.vlans and link.master and isinstance(builder.links[link.master].table, Bond):
            builder.wrong(
                f"{link.name} belongs to {link.master}: its VLANs are never heard",
                builder.links[link.vlans[0]].where,
                f'say on = "{link.master}"',
            )


def _reference(builder: _Builder, wanted: str, where: str) -> str | None:
    link = builder.links.get(wanted)
    if link is not None and link.card is None:
        return wanted
    return _card(builder, wanted, where)


def _join(builder: _Builder, name: str, member: str, where: str) -> None:
    link, master = builder.links[member], builder.links[name]
    if isinstance(master.table, Bond) and link.card is None:
        builder.wrong(f"{member} is no network card", where, "a bond is made of cards")
    elif link.master is not None:
        builder.wrong(
            f"{member} belongs to {link.master} already", where, "let it belong to one of them"
        )
    elif link.table is not None and link.table.mode != "off":
        builder.wrong(
            f"{member} belongs to {name}, and {link.where} gives it addresses",
            where,
            f'give them to {name}, and say mode = "off" there',
        )
    else:
        builder.links[member] = replace(link, master=name)


def _in_circle(links: Mapping[str, Link], name: str) -> bool:
    seen: set[str] = set()
    below = list(links[name].members)
    while below:
        one = below.pop()
        if one == name:
            return True
        if one not in seen:
            seen.add(one)
            below += links[one].members
    return False


def _cards_of(builder: _Builder, name: str) -> list[Nic]:
    """The cards below a link, the one that booted first."""
    link = builder.links[name]
    if link.card is not None:
        return [link.card]
    found = [card for member in link.members for card in _cards_of(builder, member)]
    boot = builder.facts.boot_nic
    return sorted(found, key=lambda card: card is not boot)


def _leases(builder: _Builder, link: Link) -> tuple[Lease | None, Lease6 | None]:
    """Whose lease counts: the one that is named, the link's own, that of the cards below."""
    facts, table = builder.facts, link.table
    if table is not None and table.lease is not None:
        names = [table.lease]
        known = {one.interface for one in facts.leases} | {one.interface for one in facts.leases6}
        if table.lease not in known:
            nic = cards.find(table.lease, facts, f"{link.where}.lease")
            if isinstance(nic, Problem):
                builder.problems.append(nic)
                return None, None
            names = [nic.name]
    else:
        nics = _cards_of(builder, link.name)
        names = [link.name] if link.card is None else []
        if isinstance(table, Vlan):
            names += [f"{nic.name}.{table.id}" for nic in nics]
        names += [nic.name for nic in nics]
    by_name = {one.interface: one for one in reversed(facts.leases)}
    by_name6 = {one.interface: one for one in reversed(facts.leases6)}
    return (
        next((by_name[name] for name in names if name in by_name), None),
        next((by_name6[name] for name in names if name in by_name6), None),
    )


def _address(builder: _Builder, name: str) -> None:
    """Give a link its addresses, routes and servers."""
    link = builder.links[name]
    table = link.table
    below = _cards_of(builder, name)
    if isinstance(table, Bond | Bridge) and below:
        link = replace(link, mac=below[0].permanent_mac or below[0].mac)
    if table is None or table.mode == "off":
        builder.links[name] = replace(link, mtu=table.mtu if table is not None else None)
        return
    whose = name if link.card is None else f"{link.card.name} ({link.card.mac})"
    made, warnings, problems = address(
        builder.network, table, link.where, _leases(builder, link), whose
    )
    builder.warnings += warnings
    builder.problems += problems
    builder.links[name] = replace(link, **vars(made))


def _agree(builder: _Builder) -> None:
    """Check what concerns several links; hand the MTU of a bond or bridge to its members."""
    for link in list(builder.links.values()):
        if link.mtu is not None and not isinstance(link.table, Vlan):
            for name in link.members:
                member = builder.links[name]
                if member.mtu is None:
                    builder.links[name] = replace(member, mtu=link.mtu)
                elif member.mtu < link.mtu:
                    _too_long(builder, link, member)
    owners: dict[Address, str] = {}
    for link in list(builder.links.values()):
        if isinstance(link.table, Vlan) and link.mtu is not None:
            carrier = builder.links[link.members[0]]
            if link.mtu > (carrier.mtu or _ETHERNET_MTU):
                _too_long(builder, link, carrier)
        if link.master is not None and not link.is_plain:
            builder.wrong(
                f"{link.name} belongs to {link.master}, and has addresses of its own",
                link.where,
                f'give them to {link.master}, and say mode = "off" here',
            )
        for one in link.addresses:
            if owners.setdefault(one.ip, link.name) != link.name:
                builder.wrong(
                    f"{link.name} and {owners[one.ip]} both have {one.ip}",
                    link.where,
                    "give each its own address; a lease is used by one interface",
                )


def _too_long(builder: _Builder, link: Link, below: Link) -> None:
    builder.wrong(
        f"the mtu {link.mtu} of {link.name} is larger than the {below.mtu or _ETHERNET_MTU} of "
        f"{below.name}, which carries it",
        f"{link.where}.mtu",
        f"say mtu = {link.mtu} for {below.name}, too",
    )


def _ordered(links: Mapping[str, Link]) -> tuple[Link, ...]:
    """Everything after what it is made of, otherwise as the answer file has it."""
    done: dict[str, Link] = {}

    def add(name: str) -> None:
        if name not in done:
            for member in links[name].members:
                add(member)
            done[name] = links[name]

    # cards that are described come first, in their order
    for name in sorted(links, key=lambda one: links[one].card is None):
        add(name)
    return tuple(done.values())


def _with_metrics(links: Sequence[Link]) -> tuple[Link, ...]:
    """Give every default route but the first of each IP version a metric of its own.

    The kernel refuses a second route to the same network with the same metric.
    """
    count = {4: 0, 6: 0}
    found = []
    for link in links:
        ways = []
        for way in link.ways:
            given = way
            if way.is_default and way.metric is None:
                version = way.destination.version
                if count[version]:
                    given = replace(way, metric=_FURTHER_METRIC + count[version])
                count[version] += 1
            ways.append(given)
        found.append(replace(link, ways=tuple(ways)))
    return tuple(found)
