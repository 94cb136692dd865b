# Written by netinstall.
# enp3s0: the IPv6 addresses of eth0 (52:54:00:00:00:02), made static, read from dhcpcd.
{ ... }:
{
  networking = {
    useNetworkd = true;
    useDHCP = false;
  };
  systemd.network.networks."10-netinstall-enp3s0" = {
    matchConfig.PermanentMACAddress = "52:54:00:00:00:02";
    ipv6AcceptRAConfig = {
      DHCPv6Client = false;
      UseAutonomousPrefix = false;
    };
    address = [ "fd77::5054:ff:fe00:2/64" ];
    dns = [ "fd77::53" "fd77::54" ];
    domains = [ "v6.example.net" ];
    networkConfig.IPv6AcceptRA = true;
    linkConfig = {
      MTUBytes = "1450";
      RequiredForOnline = "routable";
    };
  };
}
