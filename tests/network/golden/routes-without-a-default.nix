# Written by netinstall.
# enp3s0: the DHCP lease of eth0 (52:54:00:00:00:02), made static, given by 192.0.2.1, read
#   from dhcpcd.
{ ... }:
{
  networking = {
    useNetworkd = true;
    useDHCP = false;
  };
  systemd.network.networks."10-netinstall-enp3s0" = {
    matchConfig.PermanentMACAddress = "52:54:00:00:00:02";
    address = [ "192.0.2.57/24" ];
    routes = [ { Destination = "198.51.100.0/24"; Gateway = "192.0.2.8"; } ];
    linkConfig.RequiredForOnline = "routable";
  };
}
