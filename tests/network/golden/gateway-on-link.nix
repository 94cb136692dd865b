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
    address = [ "192.0.2.57/32" ];
    routes = [
      { Gateway = "203.0.113.1"; GatewayOnLink = true; }
      { Destination = "203.0.113.1/32"; }
      { Destination = "172.16.0.0/12"; Gateway = "203.0.113.1"; GatewayOnLink = true; }
    ];
    dns = [ "192.0.2.53" ];
    linkConfig.RequiredForOnline = "routable";
  };
}
