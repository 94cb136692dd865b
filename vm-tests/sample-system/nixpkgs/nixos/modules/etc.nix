# environment.etc: the files that activation links into /etc.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  files = config.environment.etc;
in
{
  options.environment.etc = mkOption {
    default = { };
    type = types.attrsOf (
      types.submodule {
        options = {
          text = mkOption {
            type = types.nullOr types.lines;
            default = null;
          };
          source = mkOption {
            type = types.nullOr types.path;
            default = null;
          };
        };
      }
    );
  };

  options.system.build = mkOption {
    type = types.attrsOf types.raw;
    default = { };
  };

  config.system.build.etc = pkgs.runCommand "etc" { } (
    "mkdir -p $out/etc\n"
    + lib.concatLines (
      lib.mapAttrsToList (
        name: file:
        let
          source = if file.text != null then pkgs.writeText "etc-${baseNameOf name}" file.text else file.source;
        in
        ''
          mkdir -p $out/etc/${dirOf name}
          ln -s ${source} $out/etc/${name}
        ''
      ) files
    )
  );

  config.environment.etc = {
    "group".text = ''
      root:x:0:
      tty:x:5:
      disk:x:6:
      kmem:x:9:
      systemd-network:x:152:
      nixbld:x:30000:
    '';
    "inittab".source = "${pkgs.programs}/share/inittab";
    "nix/nix.conf".text = ''
      # No network, no build users, no name spaces needed: as in the installation.
      build-users-group =
      sandbox = false
      substituters =
    '';
    "os-release".text = ''
      ID=nixos
      NAME=NixOS
      PRETTY_NAME="NixOS ${config.system.nixos.label} (sample system)"
      VERSION_ID="${config.system.nixos.release}"
    '';
    "passwd".text = ''
      root:x:0:0:System administrator:/root:/bin/sh
      systemd-network:x:152:152:systemd network management:/var/empty:/bin/false
      nobody:x:65534:65534:Unprivileged account:/var/empty:/bin/false
    '';
    "profile".text = ''
      export PATH=/run/current-system/sw/bin
      export NIX_PATH=nixpkgs=/nix/var/nix/profiles/per-user/root/channels/nixos:nixos-config=/etc/nixos/configuration.nix
      PS1='[\u@\h:\w]# '
    '';
    "systemd/network/99-default.link".source = "${pkgs.udev}/lib/systemd/network/99-default.link";
    "udev/rules.d".source = "${pkgs.udev}/lib/udev/rules.d";
  };
}
