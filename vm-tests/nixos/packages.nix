# nixpkgs with Debian's programs in place of its packages: no compiler, no sources, no binary cache.
#
# What nixpkgs writes itself (scripts, configuration files, buildEnv, closureInfo, make-squashfs …)
# is built by its own expressions, with this machine's bash and coreutils.
{
  nixpkgs,
  # Debian 13, unpacked, with packages/NAME: the programs of each package
  debian,
  # the root of `netinstall image build`: Debian 12 with the agent
  environment,
}:
let
  outputs = [
    "bin"
    "dev"
    "doc"
    "hashed"
    "info"
    "p11kit"
    "unbundled"
    "lastlog"
    "lib"
    "login"
    "man"
    "mount"
    "su"
    "swap"
  ];

  overlay =
    final: prev:
    let
      inherit (prev) lib;

      # only /usr: the rest are links to it, and devices, which a store cannot hold
      unpacked =
        name: root:
        builtins.path {
          inherit name;
          path = root + "/usr";
          filter =
            path: _:
            builtins.match ".*/(usr/lib/modules|usr/share/(doc|man|locale|perl5/Debconf)|__pycache__)" path
            == null;
        };
      # A tree whose programs find their libraries in it, wherever they are started.
      standalone =
        name: root:
        final.runCommand name { } ''
          mkdir $out
          cp -a ${unpacked "${name}-unpacked" root} $out/usr
          chmod -R u+w $out
          python3 ${./make-standalone.py} $out ${unpacked "debian-13-unpacked" debian}
        '';
      userland = standalone "debian-13" debian;

      # the programs of some packages of Debian; files, for the scripted stage 1 takes links for files
      programs = packages: ''
        for package in ${toString packages}; do
          while read -r program; do
            if [ -L ${userland}/$program ]; then
              ln -sf ${userland}/$program $out/bin/
            else
              cp -f ${userland}/$program $out/bin/
            fi
          done < ${debian + "/packages"}/$package
        done
      '';
      # a package of nixpkgs that has them
      of =
        name: packages:
        with' name (_: lib.optionalAttrs (name == "shadow") { shellPath = "/bin/nologin"; }) ''
          ${programs packages}
          # wanted of some
          install -D /dev/null $out/lib/tmpfiles.d/${name}.conf
        '';
      with' =
        name: attributes: script:
        lib.makeOverridable (
          _:
          let
            self = final.stdenvNoCC.mkDerivation {
              inherit name;
              buildCommand = ''
                mkdir -p $out/bin
                ln -s bin $out/sbin
                ${script}
              '';
              passthru = lib.genAttrs outputs (_: self) // { pname = name; version = "0"; } // attributes self;
              meta.mainProgram = lib.removePrefix "gnu" (lib.getName name);
            };
          in
          self
        ) { };
      shell = with' "bash" (_: { shellPath = "/bin/bash"; }) ''
        ln -s ${userland}/usr/bin/bash $out/bin/bash
        ln -s bash $out/bin/sh
      '';
      # this machine's own: nothing of it is in a result
      ours = program: with' program (_: { }) "ln -s $(type -P ${program}) $out/bin/";

      version = builtins.head (builtins.attrNames (builtins.readDir (debian + "/usr/lib/modules")));
      # half of them have no part in an installation
      modules = builtins.path {
        name = "modules";
        path = debian + "/usr/lib/modules/${version}";
        filter =
          path: _:
          builtins.match ".*/(sound|drivers/(gpu|media|iio|staging|net/wireless|bluetooth)|net/(wireless|mac80211|bluetooth)|fs/(ceph|ocfs2|smb))" path
          == null;
      };
      linux =
        with' "linux-${version}"
          (_: {
            inherit version;
            modDirVersion = version;
            target = "bzImage";
            features = { };
            kernelPatches = [ ];
            isModular = true;
            buildDTBs = false;
            configfile = builtins.path {
              name = "kernel-config";
              path = debian + "/boot/config-${version}";
            };
            kernelAtLeast = lib.versionAtLeast version;
            kernelOlder = lib.versionOlder version;
            inherit (final) stdenv;
            config = lib.genAttrs [ "isSet" "isYes" "isEnabled" "isModule" ] (_: _: true) // {
              isNo = _: false;
              isDisabled = _: false;
            };
          })
          ''
            rm -r $out/bin $out/sbin
            mkdir -p $out/lib/modules
            cp ${debian + "/boot/vmlinuz-${version}"} $out/bzImage
            cp -r ${modules} $out/lib/modules/${version}
            chmod -R u+w $out/lib
            rm -f $out/lib/modules/${version}/{build,source}
            ${final.kmod}/bin/depmod -b $out -a ${version}
          '';

      # The agent as package.nix makes it, of what `netinstall image build` puts into its root.
      agentUserland = standalone "debian-12" environment;
      agent = with' "netinstall" (self: {
        version = "0.1.0";
        tools = [ ];
        environment = self;
        userland = agentUserland;
      }) ''
        mkdir -p $out/lib
        cp -r ${agentUserland}/usr/lib/netinstall $out/lib/netinstall
        chmod -R u+w $out/lib/netinstall
        substituteInPlace $out/lib/netinstall/installer/model/programs.py \
          --replace-fail '"/run/current-system/sw/bin:' \
          '"${final.dhcpcd}/bin:${agentUserland}/usr/bin:${agentUserland}/usr/sbin:/run/current-system/sw/bin:'
        substituteInPlace $out/lib/netinstall/installer/init/devices.py \
          --replace-fail '"/lib/systemd/systemd-udevd"' '"${agentUserland}/usr/lib/systemd/systemd-udevd"'
        substituteInPlace $out/lib/netinstall/installer/init/dhcp-event \
          --replace-fail 'PATH=/usr/sbin:' 'PATH=${final.coreutils}/bin:/usr/sbin:'
        # as python3.withPackages: an interpreter that has it as a module
        cp -r ${agentUserland}/usr/bin/python3.11 $out/bin/python
        ln -s ${agentUserland}/usr/lib/python3.11 $out/lib/python3.11
        mkdir -p $out/lib/python3
        cp -r ${agentUserland}/usr/lib/python3/dist-packages $out/lib/python3/
        chmod u+w $out/lib/python3/dist-packages
        echo $out/lib/netinstall > $out/lib/python3/dist-packages/netinstall.pth
        # builders are root here, and Python would write into the store
        printf '%s\n' '#!${final.runtimeShell}' "exec $out/bin/python -IB -m installer "'"$@"' > $out/bin/netinstall
        chmod +x $out/bin/netinstall
      '';
    in
    lib.mapAttrs of {
      # programs of packages that are named differently, or split otherwise
      coreutils = [ "coreutils" ];
      coreutils-full = [ "coreutils" ];
      findutils = [ "findutils" ];
      diffutils = [ "diffutils" ];
      gnugrep = [ "grep" ];
      gnused = [ "sed" ];
      gawk = [ "gawk" ];
      gnutar = [ "tar" ];
      gzip = [ "gzip" ];
      bzip2 = [ "bzip2" ];
      xz = [ "xz-utils" ];
      zstd = [ "zstd" ];
      less = [ "less" ];
      procps = [ "procps" ];
      shadow = [
        "passwd"
        "login"
      ];
      su = [ "util-linux" ];
      util-linux = [
        "util-linux"
        "util-linux-extra"
        "mount"
        "login"
        "fdisk"
      ];
      iproute2 = [ "iproute2" ];
      iputils = [ "iputils-ping" ];
      dbus = [
        "dbus-bin"
        "dbus-daemon"
      ];
      # of a version that is nearer to nixpkgs' than the environment's
      dhcpcd = [ "dhcpcd-base" ];
      e2fsprogs = [ "e2fsprogs" ];
      dosfstools = [ "dosfstools" ];
      kbd = [ "kbd" ];
      getent = [ "libc-bin" ];
      getconf = [ "libc-bin" ];
      patchelf = [ "patchelf" ];
    }
    // {
      stdenvNoCC = final.stdenv;

      bash = shell;
      bashInteractive = shell;
      bashNonInteractive = shell;
      util-linuxMinimal = final.util-linux;

      perl = with' "perl" (self: {
        withPackages = _: self;
        pkgs = { };
      }) ''
        # where it looks for its modules is compiled in
        cat > $out/bin/perl <<'END'
        #!${final.runtimeShell}
        at=${userland}/usr
        lib=$at/lib/x86_64-linux-gnu
        export PERL5LIB=$(echo $lib/perl-base $lib/perl/5.[0-9]* $lib/perl5/5.* $at/share/perl/5.[0-9]* $at/share/perl5 | tr ' ' :)
        exec $at/bin/perl "$@"
        END
        chmod +x $out/bin/perl
      '';

      kmod = with' "kmod" (_: { }) ''
        ${programs [ "kmod" ]}
        mkdir $out/lib
        cp -L ${userland}/usr/lib/x86_64-linux-gnu/libkmod.so.2 $out/lib/
      '';
      lvm2 = with' "lvm2" (_: { }) ''
        ${programs [
          "lvm2"
          "dmsetup"
        ]}
        mkdir -p $out/lib/udev/rules.d
        cp ${userland}/usr/lib/udev/rules.d/*-{dm,lvm}*.rules $out/lib/udev/rules.d/
      '';
      busybox = with' "busybox" (_: { }) ''
        ${programs [ "busybox-static" ]}
        for applet in $($out/bin/busybox --list); do
          [ -e $out/bin/$applet ] || ln -s busybox $out/bin/$applet
        done
      '';

      # what stage-1.nix copies and strips
      stdenv = prev.stdenv // {
        cc = prev.stdenv.cc // {
          libc = final.glibc;
        };
      };
      bintools = with' "bintools" (_: { }) ''
        ln -s ${final.patchelf}/bin/patchelf $out/bin/
        mkdir $out/nix-support
        echo 'STRIP=true RANLIB=true' > $out/nix-support/setup-hook
      '';

      glibc = with' "glibc" (_: { }) ''
        ln -s ${userland}/usr/lib/x86_64-linux-gnu $out/lib
      '';
      glibcLocales = with' "glibc-locales" (_: { }) ''
        mkdir -p $out/lib/locale
        touch $out/lib/locale/locale-archive
      '';

      nix = with' "nix" (_: { version = "2.26.3"; }) ''
        ${programs [ "nix-bin" ]}
        mkdir -p $out/lib/tmpfiles.d
        echo 'd /nix/var/nix/daemon-socket 0755 root root - -' > $out/lib/tmpfiles.d/nix-daemon.conf
      '';

      # Debian's looks for everything in /usr/lib/systemd: the configuration links it there
      systemd =
        with' "systemd"
          (
            _:
            lib.genAttrs [
              "withCryptsetup"
              "withEfi"
              "withHostnamed"
              "withKmod"
              "withLocaled"
              "withLogind"
              "withTimedated"
              "withUtmp"
            ] (_: true)
            // lib.genAttrs [
              "withBootloader"
              "withFido2"
              "withImportd"
              "withKerberos"
              "withMachined"
              "withNetworkd"
              "withNspawn"
              "withPortabled"
              "withRepart"
              "withSysupdate"
              "withTpm2Tss"
              "withTpm2Units"
            ] (_: false)
            // {
              version = "257";
              interfaceVersion = 2;
              inherit (final) kmod kbd util-linux;
            }
          )
          ''
            ${programs [
              "systemd"
              "udev"
            ]}
            mkdir -p $out/lib $out/example $out/etc
            cp -a ${userland}/usr/lib/systemd $out/lib/systemd
            chmod -R u+w $out/lib/systemd
            mkdir $out/example/systemd
            mv $out/lib/systemd/{system,user} $out/example/systemd/
            mkdir -p $out/example/systemd/system/factory-reset.target.wants
            cp -r ${userland}/usr/lib/udev $out/lib/udev
            mkdir $out/share
            cp -r ${userland}/usr/share/dbus-1 $out/share/
            for folder in modprobe.d sysctl.d tmpfiles.d sysusers.d; do
              cp -r ${userland}/usr/lib/$folder $out/lib/
              cp -r ${userland}/usr/lib/$folder $out/example/
            done
            touch $out/example/tmpfiles.d/{portables,systemd-nspawn}.conf
          '';
      systemdMinimal = final.systemd;

      # Programs that are compiled in nixpkgs, and what does the same here.
      makeInitrdNGTool = final.writeShellScriptBin "make-initrd-ng" ''
        PATH=${final.patchelf}/bin:$PATH exec python3 ${./make-initrd-ng.py} "$@"
      '';
      nixos-init = with' "nixos-init" (_: { }) ''
        cat > $out/bin/resolve-in-root <<'END'
        #!${final.runtimeShell}
        exec ${final.coreutils}/bin/chroot "$1" ${final.coreutils}/bin/realpath "$2"
        END
        ln -s resolve-in-root $out/bin/find-etc
        chmod +x $out/bin/resolve-in-root
      '';
      lndir = final.writeShellScriptBin "lndir" ''
        if [ "$1" = -silent ]; then shift; fi
        cp -rsn "$1"/. "''${2:-.}"/
      '';

      formats = prev.formats // {
        toml = settings: prev.formats.toml settings // {
          generate =
            name: value:
            final.runCommand name
              {
                value = builtins.toJSON value;
                passAsFile = [ "value" ];
              }
              ''
                jq -r 'def toml:
                    if type == "object" then "{" + (to_entries | map("\(.key | tojson) = \(.value | toml)") | join(", ")) + "}"
                    elif type == "array" then "[" + (map(toml) | join(", ")) + "]"
                    else tojson end;
                  to_entries[] | "\(.key | tojson) = \(.value | toml)"' $valuePath > $out
              '';
        };
      };

      # files that the configuration links
      makeDBusConf.override = _: final.writeTextDir "session.conf" "";
      kmod-debian-aliases = final.emptyFile;
      kmod-blacklist-ubuntu = final.writeTextDir "modprobe.conf" "";
      cacert = with' "cacert" (_: { }) "install -D /dev/null $out/etc/ssl/certs/ca-bundle.crt; install -D /dev/null $out/etc/ssl/trust-source/ca-bundle.trust.p11-kit";
      iana-etc = final.runCommand "iana-etc" { } "mkdir -p $out/etc; touch $out/etc/{services,protocols}";

      jq = ours "jq";
      cpio = ours "cpio";
      squashfsTools = ours "mksquashfs";
      grub2_efi = with' "grub" (_: { }) "ln -s $(type -P grub-mkimage) $(type -P grub-script-check) $out/bin/";
      ipxe = with' "ipxe" (_: { }) "cp /usr/lib/ipxe/{undionly.kpxe,ipxe.efi} $out/";
      # of the options, only nixpkgs' own: -t
      pixz = final.writeShellScriptBin "pixz" "exec xz -0 -T0";

      debianUserland = userland;
      linuxPackages_debian = final.linuxPackagesFor linux;
      netinstall = agent;
    };

  # Whatever is made of sources, and is none of the packages above, becomes an empty folder.
  withoutSources =
    lib: stdenv:
    stdenv
    // {
      # asked for its kind, never run
      cc = {
        outPath = "/usr";
        isClang = false;
        isGNU = true;
        targetPrefix = "";
        version = "12";
        libc = lib.genAttrs ([ "out" "outPath" ] ++ outputs) (_: "/usr");
        bintools.isLLVM = false;
        bintools.dynamicLinker = "/lib64/ld-linux-x86-64.so.2";
      };
      mkDerivation =
        arguments:
        let
          given = if lib.isFunction arguments then arguments (given // { finalPackage = self; }) else arguments;
          self = stdenv.mkDerivation {
            name = "empty-${given.name or "${given.pname}-${given.version}"}";
            buildCommand = "mkdir -p $out/bin";
            passthru = lib.genAttrs (lib.remove "out" (given.outputs or [ ]) ++ outputs) (_: self) // {
              pname = given.pname or given.name;
              version = given.version or "0";
            }
            // given.passthru or { };
            meta = removeAttrs (given.meta or { }) [ "outputsToInstall" ];
          };
        in
        if given ? srcs || given ? src && !(given.dontUnpack or false) then self else stdenv.mkDerivation arguments;
    };

  stages =
    {
      lib,
      localSystem,
      config,
      overlays,
      ...
    }:
    [
      (_: { __raw = true; })
      (_: {
        inherit config overlays;
        stdenv = withoutSources lib (
          import (toString nixpkgs + "/pkgs/stdenv/generic") { defaultConfig = config; } {
            name = "stdenv-debian";
            buildPlatform = localSystem;
            hostPlatform = localSystem;
            targetPlatform = localSystem;
            preHook = "export NIX_ENFORCE_PURITY=";
            initialPath = [
              "/"
              "/usr"
            ];
            shell = "/bin/bash";
            cc = null;
            fetchurlBoot = _: {
              type = "derivation";
              outPath = throw "nothing is fetched here";
            };
          }
        );
      })
    ];
in
import nixpkgs {
  system = "x86_64-linux";
  config = { };
  overlays = [ overlay ];
  stdenvStages = stages;
}
