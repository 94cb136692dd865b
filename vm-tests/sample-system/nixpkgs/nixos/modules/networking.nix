# networking.* and systemd.network.* -> /etc/sample/network, lines of "key value"
# that programs/network reads; an "interface" line begins a new interface.  In the
# variant "network", systemd.network.* becomes the files of the real networkd.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.networking;

  strings = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };
  nullable =
    type:
    mkOption {
      type = types.nullOr type;
      default = null;
    };
  settings = names: types.submodule { options = lib.genAttrs names (_: nullable types.raw); };

  macAddress = types.strMatching "([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}";
  ipv4 = types.strMatching "[0-9]{1,3}([.][0-9]{1,3}){3}";
  ipv6 = types.strMatching "[0-9a-fA-F:.]*:[0-9a-fA-F:.]*";

  family = address: longest: {
    addresses = mkOption {
      default = [ ];
      type = types.listOf (
        types.submodule {
          options = {
            address = mkOption { type = address; };
            prefixLength = mkOption { type = types.ints.between 0 longest; };
          };
        }
      );
    };
    routes = mkOption {
      default = [ ];
      type = types.listOf (
        types.submodule {
          options = {
            address = mkOption { type = address; };
            prefixLength = mkOption { type = types.ints.between 0 longest; };
            via = nullable address;
            # Words of ip-route(8), as the scripted back end hands them on.
            options = mkOption {
              default = { };
              type = types.attrsOf types.str;
            };
          };
        }
      );
    };
  };

  interface =
    { name, ... }:
    {
      options = {
        name = mkOption {
          type = types.str;
          default = name;
        };
        useDHCP = nullable types.bool;
        macAddress = nullable macAddress;
        mtu = nullable types.int;
        ipv4 = family ipv4 32;
        ipv6 = family ipv6 128;
      };
    };

  gateway =
    address:
    mkOption {
      default = null;
      type = types.nullOr (
        types.coercedTo types.str (text: { address = text; }) (
          types.submodule {
            options = {
              address = mkOption { type = address; };
              interface = nullable types.str;
              metric = nullable types.int;
            };
          }
        )
      );
    };

  network = {
    options = {
      enable = mkOption {
        type = types.bool;
        default = true;
      };
      matchConfig = mkOption {
        default = { };
        type = types.submodule {
          options = {
            Kind = nullable types.str;
            Name = nullable (types.either types.str (types.listOf types.str));
            MACAddress = nullable macAddress;
            PermanentMACAddress = nullable macAddress;
            Path = nullable types.str;
            Type = nullable types.str;
          };
        };
      };
      address = strings;
      gateway = strings;
      dns = strings;
      domains = strings;
      ntp = strings;
      DHCP = nullable types.str;
      networkConfig = mkOption {
        default = { };
        type = settings [
          "Address"
          "Bond"
          "Bridge"
          "ConfigureWithoutCarrier"
          "DHCP"
          "DNS"
          "Description"
          "Domains"
          "Gateway"
          "IPv6AcceptRA"
          "IPv6PrivacyExtensions"
          "LinkLocalAddressing"
          "NTP"
          "PrimarySlave"
        ];
      };
      vlan = strings;
      ipv6AcceptRAConfig = mkOption {
        default = { };
        type = settings [
          "DHCPv6Client"
          "UseAutonomousPrefix"
          "UseDNS"
          "UseDomains"
          "UseMTU"
        ];
      };
      linkConfig = mkOption {
        default = { };
        type = settings [
          "ActivationPolicy"
          "MACAddress"
          "MTUBytes"
          "RequiredForOnline"
          "Unmanaged"
        ];
      };
      dhcpV4Config = mkOption {
        default = { };
        type = types.attrs;
      };
      dhcpV6Config = mkOption {
        default = { };
        type = types.attrs;
      };
      routes = mkOption {
        default = [ ];
        type = types.listOf (settings [
          "Destination"
          "Gateway"
          "GatewayOnLink"
          "Metric"
          "PreferredSource"
          "Scope"
          "Source"
          "Table"
          "Type"
        ]);
      };
    };
  };

  netdev = {
    options = {
      netdevConfig = mkOption {
        type = settings [
          "Description"
          "Kind"
          "MACAddress"
          "MTUBytes"
          "Name"
        ];
      };
      bondConfig = mkOption {
        default = { };
        type = settings [
          "AdSelect"
          "DownDelaySec"
          "LACPTransmitRate"
          "MIIMonitorSec"
          "MinLinks"
          "Mode"
          "TransmitHashPolicy"
          "UpDelaySec"
        ];
      };
      bridgeConfig = mkOption {
        default = { };
        type = settings [ "STP" ];
      };
      vlanConfig = mkOption {
        default = { };
        type = settings [ "Id" ];
      };
    };
  };

  link = {
    options = {
      matchConfig = mkOption {
        type = settings [
          "Kind"
          "MACAddress"
          "Path"
          "PermanentMACAddress"
          "Type"
        ];
      };
      linkConfig = mkOption {
        type = settings [
          "AlternativeNamesPolicy"
          "MACAddress"
          "MTUBytes"
          "Name"
        ];
      };
    };
  };

  # systemd.syntax(7): a list is its key again and again.
  ini =
    name: values:
    let
      given = lib.filterAttrs (_: value: value != null && value != [ ]) values;
      shown =
        value:
        if value == true then
          "true"
        else if value == false then
          "false"
        else
          toString value;
      lines = lib.concatMap (key: map (value: "${key}=${shown value}") (toList given.${key})) (
        builtins.attrNames given
      );
    in
    lib.optionalString (lines != [ ]) (lib.concatLines ([ "[${name}]" ] ++ lines ++ [ "" ]));

  joined = words: if words == [ ] then null else lib.concatStringsSep " " words;

  networkUnit =
    n:
    ini "Match" n.matchConfig
    + ini "Link" n.linkConfig
    + ini "Network" (
      n.networkConfig
      // lib.filterAttrs (_: value: value != null && value != [ ]) {
        Address = n.address ++ toList n.networkConfig.Address;
        DHCP = if n.DHCP != null then n.DHCP else n.networkConfig.DHCP;
        DNS = n.dns ++ toList n.networkConfig.DNS;
        Domains = joined (n.domains ++ toList n.networkConfig.Domains);
        Gateway = n.gateway ++ toList n.networkConfig.Gateway;
        NTP = n.ntp ++ toList n.networkConfig.NTP;
        VLAN = n.vlan;
      }
    )
    + ini "IPv6AcceptRA" n.ipv6AcceptRAConfig
    + ini "DHCPv4" n.dhcpV4Config
    + ini "DHCPv6" n.dhcpV6Config
    + lib.concatStringsSep "" (map (ini "Route") n.routes);

  netdevUnit =
    n:
    ini "NetDev" n.netdevConfig
    + ini "Bond" n.bondConfig
    + ini "Bridge" n.bridgeConfig
    + ini "VLAN" n.vlanConfig;

  linkUnit = n: ini "Match" n.matchConfig + ini "Link" n.linkConfig;

  unitFiles =
    kind: write: units:
    builtins.listToAttrs (
      lib.mapAttrsToList (name: unit: {
        name = "systemd/network/${name}.${kind}";
        value.text = write unit;
      }) units
    );

  toList = value: if value == null then [ ] else if builtins.isList value then value else [ value ];
  networkdIsOn = cfg.useNetworkd || config.systemd.network.enable;

  fromInterface =
    i:
    let
      addresses = i.ipv4.addresses ++ i.ipv6.addresses;
      # As dhcpcd's module has it: an address of one's own means no DHCP.
      dhcp = if i.useDHCP != null then i.useDHCP else cfg.useDHCP && addresses == [ ];
    in
    [ "interface" "name ${i.name}" ]
    ++ map (a: "address ${a.address}/${toString a.prefixLength}") addresses
    ++ map (r: "route ${r.address}/${toString r.prefixLength} ${if r.via == null then "-" else r.via}") (
      i.ipv4.routes ++ i.ipv6.routes
    )
    ++ lib.optional (i.macAddress != null) "set-mac ${i.macAddress}"
    ++ lib.optional (i.mtu != null) "mtu ${toString i.mtu}"
    ++ lib.optional dhcp "dhcp yes";

  fromNetwork =
    n:
    let
      dhcp = if n.DHCP != null then n.DHCP else n.networkConfig.DHCP;
    in
    [ "interface" ]
    ++ map (name: "name ${name}") (toList n.matchConfig.Name)
    ++ map (mac: "mac ${mac}") (toList n.matchConfig.MACAddress ++ toList n.matchConfig.PermanentMACAddress)
    ++ map (a: "address ${a}") (n.address ++ toList n.networkConfig.Address)
    ++ map (g: "route default ${g}") (n.gateway ++ toList n.networkConfig.Gateway)
    ++ map (
      r:
      "route ${if r.Destination == null then "default" else r.Destination} ${if r.Gateway == null then "-" else r.Gateway}"
    ) n.routes
    ++ map (server: "nameserver ${server}") (n.dns ++ toList n.networkConfig.DNS)
    ++ map (domain: "search ${domain}") (n.domains ++ toList n.networkConfig.Domains)
    ++ lib.optional (n.linkConfig.MTUBytes != null) "mtu ${toString n.linkConfig.MTUBytes}"
    ++ lib.optional (builtins.elem dhcp [
      true
      "true"
      "yes"
      "ipv4"
    ]) "dhcp yes";

  networks = builtins.filter (n: n.enable) (builtins.attrValues config.systemd.network.networks);
  real = networkdIsOn && pkgs.hasNetworkd;
in
{
  options = {
    networking = {
      hostName = mkOption {
        type = types.strMatching "|[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
        default = "nixos";
      };
      domain = nullable types.str;
      useDHCP = mkOption {
        type = types.bool;
        default = true;
      };
      useNetworkd = mkOption {
        type = types.bool;
        default = false;
      };
      nameservers = strings;
      search = strings;
      timeServers = strings;
      bonds = mkOption {
        default = { };
        type = types.attrsOf (
          types.submodule {
            options = {
              interfaces = strings;
              driverOptions = mkOption {
                default = { };
                type = types.attrsOf types.str;
              };
            };
          }
        );
      };
      bridges = mkOption {
        default = { };
        type = types.attrsOf (types.submodule { options.interfaces = strings; });
      };
      vlans = mkOption {
        default = { };
        type = types.attrsOf (
          types.submodule {
            options = {
              id = mkOption { type = types.int; };
              interface = mkOption { type = types.str; };
            };
          }
        );
      };
      defaultGateway = gateway ipv4;
      defaultGateway6 = gateway ipv6;
      interfaces = mkOption {
        type = types.attrsOf (types.submodule interface);
        default = { };
      };
    };
    boot.kernel.sysctl = mkOption {
      default = { };
      type = types.attrsOf (types.nullOr (types.either types.bool (types.either types.int types.str)));
    };
    systemd.network = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      networks = mkOption {
        type = types.attrsOf (types.submodule network);
        default = { };
      };
      netdevs = mkOption {
        type = types.attrsOf (types.submodule netdev);
        default = { };
      };
      links = mkOption {
        type = types.attrsOf (types.submodule link);
        default = { };
      };
      wait-online = mkOption {
        type = types.attrs;
        default = { };
      };
    };
  };

  config = {
    assertions = [
      {
        assertion = !cfg.useNetworkd || cfg.defaultGateway == null || cfg.defaultGateway.interface != null;
        message = "networking.defaultGateway.interface is not optional when using networkd.";
      }
      {
        assertion = real || config.systemd.network.netdevs == { };
        message = "This payload has no networkd: build the sample system with --variant network.";
      }
      {
        assertion = cfg.bonds == { } && cfg.bridges == { } && cfg.vlans == { };
        message = "This payload makes bonds, bridges and VLANs with networkd only.";
      }
      {
        assertion = config.boot.kernel.sysctl == { };
        message = "This payload sets no sysctl.";
      }
    ];

    # As NixOS's nixos/modules/tasks/network-interfaces-systemd.nix has it for useDHCP.
    systemd.network.networks = lib.mkIf (networkdIsOn && cfg.useDHCP) {
      "99-ethernet-default-dhcp" = {
        matchConfig = {
          Type = "ether";
          Kind = "!*";
        };
        networkConfig = {
          DHCP = "yes";
          IPv6PrivacyExtensions = "kernel";
        };
      };
    };

    environment.etc = lib.mkMerge [
      (lib.mkIf real (
        unitFiles "network" networkUnit (
          lib.filterAttrs (_: n: n.enable) config.systemd.network.networks
        )
        // unitFiles "netdev" netdevUnit config.systemd.network.netdevs
      ))
      (unitFiles "link" linkUnit config.systemd.network.links)
      {
        "hostname" = lib.mkIf (cfg.hostName != "") { text = cfg.hostName + "\n"; };
        "hosts".text = ''
          127.0.0.1 localhost
          ::1 localhost
        ''
        + lib.optionalString (cfg.hostName != "")
          "127.0.0.2 ${lib.optionalString (cfg.domain != null) "${cfg.hostName}.${cfg.domain} "}${cfg.hostName}\n";
        "sample/network".text = lib.concatLines (
          lib.optional real "networkd yes"
          ++ lib.optional (cfg.useDHCP && !real) "dhcp-elsewhere yes"
          ++ lib.optional (cfg.domain != null) "domain ${cfg.domain}"
          ++ map (server: "nameserver ${server}") cfg.nameservers
          ++ map (domain: "search ${domain}") cfg.search
          ++ map (g: "gateway ${g.address} ${if g.interface == null then "-" else g.interface}") (
            toList cfg.defaultGateway ++ toList cfg.defaultGateway6
          )
          ++ lib.concatMap fromInterface (builtins.attrValues cfg.interfaces)
          # what stands in for networkd leaves to "dhcp-elsewhere" what asks everywhere
          ++ lib.optionals (networkdIsOn && !real) (
            lib.concatMap fromNetwork (builtins.filter (n: n.matchConfig.Kind == null) networks)
          )
        );
      }
    ];
  };
}
