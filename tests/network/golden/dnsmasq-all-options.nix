# Written by netinstall.
# enp3s0: the DHCP lease of eth0 (52:54:00:00:00:02), made static, given by 192.0.2.1, read
#   from dhcpcd.
{ ... }:
{
  networking = {
    hostName = "node7";
    domain = "rack3.example.net";
    useNetworkd = true;
    useDHCP = false;
  };
  systemd.network.networks."10-netinstall-enp3s0" = {
    matchConfig.PermanentMACAddress = "52:54:00:00:00:02";
    address = [ "192.0.2.57/24" ];
    routes = [ { Gateway = "192.0.2.1"; } { Gateway = "192.0.2.2"; Metric = 1025; } ];
    dns = [ "192.0.2.53" "192.0.2.54" "192.0.2.55" "192.0.2.56" ];
    domains = [ "rack3.example.net" "example.net" ];
    ntp = [ "192.0.2.4" "192.0.2.5" ];
    linkConfig = {
      MTUBytes = "1400";
      RequiredForOnline = "routable";
    };
  };
}
