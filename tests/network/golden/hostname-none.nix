# Written by netinstall.
# enp3s0: the DHCP lease of eth0 (52:54:00:00:00:02), made static, given by 192.0.2.1, read
#   from dhcpcd.
{ ... }:
{
  networking = {
    domain = "example.net";
    useNetworkd = true;
    useDHCP = false;
  };
  systemd.network.networks."10-netinstall-enp3s0" = {
    matchConfig.PermanentMACAddress = "52:54:00:00:00:02";
    address = [ "192.0.2.57/24" ];
    routes = [ { Gateway = "192.0.2.1"; } ];
    domains = [ "example.net" ];
    linkConfig.RequiredForOnline = "routable";
  };
}
