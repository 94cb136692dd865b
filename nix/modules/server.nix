# A boot server: one site file, and NixOS's own services for DHCP, TFTP, HTTP and NFS around it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.netinstall;
  toml = pkgs.formats.toml { };
  schema = import ../schema.nix { inherit lib; };
  site = schema.given cfg.site;

  # dnsmasq's secure TFTP serves only files of its own user, so they are copied there.
  tftpRoot = "/var/lib/netinstall/tftp";

  answers = lib.mapAttrs' (name: value: {
    name = "answers/${name}.toml";
    value = import ../checked-file.nix {
      inherit (pkgs) runCommand;
      inherit (cfg) package;
      file = toml.generate "${name}.toml" (schema.given value);
      verb = "check";
    };
  }) cfg.answers;

  published = pkgs.linkFarm "netinstall-published" (
    cfg.images // answers // lib.mapAttrs (_: toString) cfg.files
  );

  # All configurations are written when this system is built: a mistake is found before it is
  # switched to.
  rendered =
    pkgs.runCommand "netinstall-boot-server"
      {
        nativeBuildInputs = [ cfg.package ];
        site = builtins.toJSON (lib.recursiveUpdate site { http.root = "${placeholder "out"}/http"; });
        passAsFile = [ "site" ];
      }
      ''
        mkdir -p $out/http $out/tftp
        cp -rs ${published}/. $out/http/
        chmod -R u+w $out/http
        cp $sitePath $out/site.json
        netinstall boot render $out/site.json --for ipxe --output $out/http
        ${lib.optionalString (cfg.backend == "pixiecore") ''
          netinstall boot render $out/site.json --for pixiecore --output $out/http
        ''}
        ${lib.optionalString (cfg.backend == "dnsmasq") ''
          netinstall boot render $out/site.json --for dnsmasq --output $out
        ''}
        ${lib.optionalString cfg.grub ''
          netinstall boot render $out/site.json --for grub --output $out/tftp
        ''}
        ${lib.optionalString (site ? nfs) ''
          netinstall boot render $out/site.json --for exports --output $out
        ''}
        cp ${pkgs.ipxe}/undionly.kpxe ${pkgs.ipxe}/ipxe.efi $out/tftp/
        cp ${pkgs.ipxe}/ipxe.efi $out/http/
        ${lib.concatStrings (
          lib.mapAttrsToList (name: source: ''
            install -D -m 0644 ${source} $out/tftp/${lib.escapeShellArg name}
          '') cfg.tftpFiles
        )}
      '';
  portOf = builtins.match "http://[^/:]*:([0-9]+).*" site.http.url;
  port = if portOf == null then 80 else lib.toInt (builtins.head portOf);
in
{
  options.services.netinstall = {
    enable = lib.mkEnableOption "a boot server that installs machines with Netinstall";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../package.nix { };
      defaultText = lib.literalMD "`packages.netinstall` of the flake, built from this system's `pkgs`";
      description = "What writes the servers' configurations.";
    };

    site = mkOption {
      type = schema.siteFile { freeform = toml.type; };
      example = lib.literalExpression ''
        {
          http.url = "http://192.0.2.1:8080";
          tftp.address = "192.0.2.1";
          dhcp = {
            interface = "lan0";
            subnet = "192.0.2.0/24";
            range = { first = "192.0.2.100"; last = "192.0.2.199"; };
          };
          answers = "http://192.0.2.1:8080/answers/";
          images = [ { name = "netinstall"; folder = "image"; } ];
        }
      '';
      description = ''
        The site file; its fields are those of docs/site-file.md. `http.root` and `tftp.root` are set
        by this module.
      '';
    };

    images = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression "{ image = nfsroot.config.system.build.nfsroot.image; }";
      description = "Boot environments by their `folder` in the site file.";
    };

    answers = mkOption {
      type = types.attrsOf (schema.answerFile { freeform = toml.type; });
      default = { };
      description = ''
        Answer files by the name under which a machine looks for its own (`52-54-00-12-34-56`,
        `default`), published as `answers/NAME.toml`.
      '';
    };

    files = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression ''{ "payloads" = machine.config.system.build.netinstallPayload; }'';
      description = "What else is published by HTTP.";
    };

    tftpFiles = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = lib.literalExpression ''{ "bootx64.efi" = ./bootx64.efi; }'';
      description = "What TFTP has besides iPXE.";
    };

    backend = mkOption {
      type = types.enum [
        "dnsmasq"
        "pixiecore"
        "none"
      ];
      default = "dnsmasq";
      description = ''
        Who answers DHCP: dnsmasq (also as a proxy, if the site says so), or Pixiecore beside a DHCP
        server that cannot be changed; "none" if another machine does.
      '';
    };

    grub = mkOption {
      type = types.bool;
      default = false;
      description = "Whether GRUB's files are published by TFTP.";
    };

    nfsRoot = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "nfsroot.config.system.build.nfsroot.tarball";
      description = "The folder with `nfsroot.tar.xz` that is unpacked to the site's `nfs.path`.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the ports of these services are opened on the site's interface.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.nfsRoot == null || site ? nfs;
        message = "services.netinstall.nfsRoot is unpacked to services.netinstall.site.nfs.path, which is missing";
      }
    ];

    services.netinstall.site = {
      # replaced by what is published when it is built
      http.root = lib.mkDefault "/var/lib/netinstall/http";
      tftp.root = lib.mkDefault tftpRoot;
    };

    system.build.netinstallServer = rendered;

    services.dnsmasq = lib.mkIf (cfg.backend == "dnsmasq") {
      enable = true;
      resolveLocalQueries = false;
      settings.conf-file = "${rendered}/dnsmasq.conf";
    };
    systemd.services.dnsmasq = lib.mkIf (cfg.backend == "dnsmasq") {
      requires = [ "netinstall-tftp.service" ];
      after = [ "netinstall-tftp.service" ];
    };
    systemd.services.netinstall-tftp = lib.mkIf (cfg.backend == "dnsmasq") {
      description = "Files that machines load by TFTP";
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        StateDirectory = "netinstall";
      };
      script = ''
        rm -rf ${tftpRoot}.new
        cp -rL --no-preserve=mode,ownership ${rendered}/tftp ${tftpRoot}.new
        chown -R ${site.tftp.user or "dnsmasq"} ${tftpRoot}.new
        rm -rf ${tftpRoot}
        mv ${tftpRoot}.new ${tftpRoot}
      '';
    };

    services.pixiecore = lib.mkIf (cfg.backend == "pixiecore") {
      enable = true;
      mode = "api";
      dhcpNoBind = true;
      port = 8089;
      statusPort = 8089;
      apiServer = "${site.http.url}/pixiecore";
    };

    services.nginx = {
      enable = true;
      virtualHosts.netinstall = {
        default = true;
        listen = [
          {
            addr = "0.0.0.0";
            inherit port;
          }
        ];
        root = "${rendered}/http";
        # answers/ is a folder for people, and large files are asked for in ranges
        locations."/".extraConfig = "autoindex on;";
      };
    };

    services.nfs.server = lib.mkIf (site ? nfs) { enable = true; };
    environment.etc."exports.d/netinstall.exports" = lib.mkIf (site ? nfs) {
      source = "${rendered}/exports";
    };
    systemd.services.netinstall-nfs-root = lib.mkIf (cfg.nfsRoot != null) {
      description = "The boot environment for NFS";
      wantedBy = [ "multi-user.target" ];
      before = [ "nfs-server.service" ];
      path = [
        pkgs.gnutar
        pkgs.xz
      ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
      };
      # machines may be running from the old one: it stays until the next start
      script = ''
        target=${lib.escapeShellArg (site.nfs.path or "")}
        if [ "$(readlink "$target/.netinstall")" != ${cfg.nfsRoot} ]; then
          mkdir -p "$target.new"
          tar -C "$target.new" -xf ${cfg.nfsRoot}/nfsroot.tar.xz
          ln -s ${cfg.nfsRoot} "$target.new/.netinstall"
          rm -rf "$target.old"
          if [ -e "$target" ]; then mv "$target" "$target.old"; fi
          mv "$target.new" "$target"
        fi
      '';
    };

    networking.firewall.interfaces.${site.dhcp.interface} = lib.mkIf cfg.openFirewall {
      allowedUDPPorts = [
        67
        69
        4011
      ];
      allowedTCPPorts =
        [ port ]
        ++ lib.optional (site ? nfs) 2049
        ++ lib.optional (cfg.backend == "pixiecore") 8089;
    };
  };
}
