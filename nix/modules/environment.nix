# What every boot environment has in common: the agent as PID 1, the drivers of network cards, the
# kernel arguments. How the root file system comes is up to installer.nix and nfsroot.nix.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.netinstall;
  original = config.customInstaller;
  toml = pkgs.formats.toml { };
  schema = import ../schema.nix { inherit lib; };

  answers = schema.given cfg.answers;
  answersFile = import ../checked-file.nix {
    inherit (pkgs) runCommand;
    inherit (cfg) package;
    file = toml.generate "answers.toml" answers;
    verb = "check";
  };

  # What stage 2 starts in place of systemd. It names nothing of this system's toplevel, which holds
  # its name: the two would be built from each other.
  init = pkgs.writeTextFile {
    name = "netinstall-init";
    executable = true;
    destination = "/init";
    text = ''
      #!${pkgs.runtimeShell}
      export PATH=${lib.makeBinPath [ pkgs.coreutils ]}
      # systemd's stage 1 leaves its own, which is 0
      umask 022
      # by this the agent knows that it may erase what it is told to
      mkdir -p /usr/lib/netinstall /mnt
      ln -sfn "$0" /usr/lib/netinstall/init
      exec ${cfg.package.environment}/bin/python -I -m installer init
    '';
  };

  parityLetter = {
    none = "n";
    odd = "o";
    even = "e";
  };
in
{
  imports = [ ../../initrd-hooks/nixos ];

  options.netinstall = {
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../package.nix { };
      defaultText = lib.literalMD "`packages.netinstall` of the flake, built from this system's `pkgs`";
      description = "The agent.";
    };

    answers = mkOption {
      type = types.nullOr (schema.answerFile { freeform = toml.type; });
      default = null;
      example = lib.literalExpression ''
        {
          payload.url = "http://192.0.2.1:8080/db.tar.zst";
          payload.sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
          disks = [
            {
              match.serial = "S3Z2NB0K123456X";
              partitions = [ { size = "rest"; mount = "/"; } ];
            }
          ];
        }
      '';
      description = ''
        The answer file of every machine that boots this environment; its fields are those of
        docs/answer-file.md. `netinstall check` looks at it when the environment is built.
      '';
    };

    answersFrom = mkOption {
      type = types.nullOr (types.strMatching "(https?://|nfs:|file:|/)[!#-~]+");
      default = null;
      example = "http://192.0.2.1:8080/answers/";
      description = ''
        Where each machine finds its answer file: a URL, a path, or with a `/` at its end a folder
        in which the most specific name wins. In place of {option}`netinstall.answers`.
      '';
    };

    report = mkOption {
      type = types.nullOr (types.strMatching "https?://[!#-~]+");
      default = null;
      example = "http://192.0.2.1:8080/report";
      description = "Where the agent POSTs its events.";
    };

    onFailure = mkOption {
      type = types.nullOr (
        types.enum [
          "shell"
          "reboot"
          "poweroff"
        ]
      );
      default = null;
      description = "What happens after a failure; without, what the answer file says.";
    };

    failureDelay = mkOption {
      type = types.nullOr (types.ints.between 0 86400);
      default = null;
      description = "Seconds that an error stays on the screen before a reboot.";
    };

    dryRun = mkOption {
      type = types.bool;
      default = false;
      description = "Show and report the plan, and change no disk.";
    };

    serial = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            unit = mkOption {
              type = types.ints.between 0 3;
              default = 0;
              description = "0 is ttyS0.";
            };
            speed = mkOption {
              type = types.enum [
                9600
                19200
                38400
                57600
                115200
              ];
              default = 115200;
              description = "Bits a second; 8 data bits and one stop bit.";
            };
            parity = mkOption {
              type = types.enum (builtins.attrNames parityLetter);
              default = "none";
              description = "Parity.";
            };
          };
        }
      );
      default = { };
      example = {
        unit = 1;
        speed = 9600;
      };
      description = "The serial console, of GRUB and of the kernel; null for the screen alone.";
    };
  };

  options.customInstaller = {
    rootDevice = mkOption {
      type = types.nullOr (
        types.addCheck types.str (path: builtins.match "/dev/disk/by-(id|path)/[^/]+" path != null)
        // {
          description = "disk below /dev/disk/by-id or /dev/disk/by-path (sda may be another disk tomorrow)";
        }
      );
      default = null;
      example = "/dev/disk/by-id/ata-Samsung_SSD_860_S3Z2NB0K123456X";
      description = ''
        The disk that is erased and gets an ESP of 512 MiB and an ext4 root. Short for one entry of
        {option}`netinstall.answers.disks`, which can say more.
      '';
    };

    networking = {
      useDHCP = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether the installed system asks DHCP. If not, the lease of
          {option}`customInstaller.networking.staticInterfaceFromDHCP` becomes its fixed address.
        '';
      };
      staticInterfaceFromDHCP = mkOption {
        type = types.str;
        default = "";
        example = "enp12s0";
        description = "The interface of the fixed address; empty for the one that booted.";
      };
    };
  };

  config = {
    netinstall.answers =
      lib.mkIf (original.rootDevice != null || !original.networking.useDHCP)
        {
          disks = lib.mkIf (original.rootDevice != null) [
            {
              match.${baseNameOf (dirOf original.rootDevice)} = baseNameOf original.rootDevice;
              wipe = "force";
              partitions = [
                {
                  type = "esp";
                  size = "512 MiB";
                  mount = "/boot";
                }
                {
                  size = "rest";
                  mount = "/";
                }
              ];
            }
          ];
          network = lib.mkIf (!original.networking.useDHCP) {
            mode = "static-from-lease";
            interface = lib.mkIf (
              original.networking.staticInterfaceFromDHCP != ""
            ) original.networking.staticInterfaceFromDHCP;
          };
        };

    assertions = [
      {
        assertion = cfg.answers == null || cfg.answersFrom == null;
        message = "netinstall.answers (also by customInstaller.*) and netinstall.answersFrom contradict each other";
      }
    ];

    boot.kernelParams = [
      "console=tty0"
    ]
    ++ lib.optional (
      cfg.serial != null
    ) "console=ttyS${toString cfg.serial.unit},${toString cfg.serial.speed}${parityLetter.${cfg.serial.parity}}8"
    ++ lib.optional (cfg.answers != null) "netinstall.answers=${answersFile}"
    ++ lib.optional (cfg.answersFrom != null) "netinstall.answers=${cfg.answersFrom}"
    ++ lib.optional (cfg.report != null) "netinstall.report=${cfg.report}"
    ++ lib.optional (cfg.onFailure != null) "netinstall.on-failure=${cfg.onFailure}"
    ++ lib.optional (
      cfg.failureDelay != null
    ) "netinstall.failure-delay=${toString cfg.failureDelay}"
    ++ lib.optional cfg.dryRun "netinstall.dry-run=1";

    # A dhcpcd with privilege separation (nixpkgs' enablePrivSep) gives up its rights to this user,
    # which NixOS has with its own service only, and shuts itself in its home.
    users.users.dhcpcd = {
      isSystemUser = true;
      group = "dhcpcd";
    };
    users.groups.dhcpcd = { };

    # The unit of netboot.nix that does this belongs to the systemd that never starts here, and an
    # NFS root has none. Payloads from a binary cache need the store to know its paths.
    boot.postBootCommands = ''
      # the home of system users, which systemd-tmpfiles would make
      mkdir -m 0555 -p /var/empty
      for registration in /nix/store/nix-path-registration /nix-path-registration; do
        if [ -e $registration ]; then
          ${config.nix.package}/bin/nix-store --load-db < $registration
          touch /etc/NIXOS
          ${config.nix.package}/bin/nix-env -p /nix/var/nix/profiles/system --set /run/current-system
        fi
      done
    '';

    boot.initrd = {
      netinstall.enable = true;
      systemd.enable = lib.mkDefault true;
      # what lies on the disks is assembled by nobody but the plan
      services.lvm.enable = false;
      availableKernelModules = import ../network-cards.nix;

      # After the activation: before, a name here means that there is nothing to activate.
      systemd.services.netinstall-init = lib.mkIf config.boot.initrd.systemd.enable {
        description = "The agent in place of systemd";
        unitConfig.DefaultDependencies = false;
        after = [ "initrd-nixos-activation.service" ];
        before = [ "initrd-switch-root.service" ];
        requiredBy = [ "initrd-switch-root.service" ];
        serviceConfig.Type = "oneshot";
        script = "echo NEW_INIT=${init}/init > /etc/switch-root.conf";
      };
    };
    # the same for the scripted stage 1, whose stage 2 starts it
    boot.systemdExecutable = "${init}/init";
    boot.swraid.enable = lib.mkForce false;
    boot.loader.grub.enable = false;

    # The initrd names it, but it is started in the root.
    system.extraDependencies = [ init ];
    environment.systemPackages = cfg.package.tools ++ [ cfg.package ];

    networking.hostName = lib.mkDefault "netinstall";
    documentation.enable = lib.mkDefault false;
    system.stateVersion = lib.mkDefault config.system.nixos.release;

    system.build.netinstallInit = init;
    system.build.netinstallAnswers = lib.mkIf (cfg.answers != null) answersFile;
  };
}
