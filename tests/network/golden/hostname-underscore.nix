# Written by netinstall.
# enp3s0: the DHCP lease of eth0 (52:54:00:00:00:02), made static, given by 192.0.2.1, read
#   from dhcpcd.
{ ... }:
{
  networking = {
    hostName = "db-7";
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
# warning: the lease's host name 'db_7' is none that NixOS takes: it becomes db-7 (set network.hostname to choose one)
