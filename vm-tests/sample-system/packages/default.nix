# The sample system's packages: store paths made of the files of Debian packages.
#
#   nix-build packages -A channel --arg debs /directory/with/the/.deb/files
#
# Used on the build machine only.  What is built here reaches the target through
# the tarball; in the target, ../nixpkgs finds it under the names in packages.nix.
{ debs }:
let
  system = "x86_64-linux";

  files = builtins.attrNames (builtins.readDir debs);

  # A .deb as a store path; its name there is free of the characters a version may have.
  debWith =
    name: prefix:
    let
      found = builtins.filter (file: builtins.substring 0 (builtins.stringLength prefix) file == prefix) files;
    in
    if builtins.length found == 1 then
      builtins.path {
        inherit name;
        path = debs + "/${builtins.head found}";
      }
    else
      throw "${toString debs} holds ${toString (builtins.length found)} files named ${prefix}*, wanted one";
  deb = name: debWith "${name}.deb" "${name}_";

  listed = builtins.filter (line: builtins.isString line && builtins.match "[a-z0-9].*" line != null) (
    builtins.split "\n" (builtins.readFile ./debian-packages.txt)
  );
  libraryDebs = map deb (builtins.filter (name: builtins.match "lib.*|zlib1g" name != null) listed ++ [ "nix-bin" ]);

  preamble = ''
    umask 022
    mkdir -p "$out"
  '';

  # The first derivation cannot use a busybox from the store: it makes it.
  busybox = derivation {
    name = "busybox";
    inherit system;
    builder = "/bin/busybox";
    args = [
      "sh"
      "-euc"
      ''
        /bin/busybox mkdir -p $out/bin
        /bin/busybox dpkg-deb -x ${deb "busybox-static"} unpacked
        /bin/busybox cp unpacked/bin/busybox $out/bin/busybox
        for applet in $($out/bin/busybox --list); do
          test $applet = busybox || /bin/busybox ln -s busybox $out/bin/$applet
        done
      ''
    ];
  };

  run =
    name: script:
    derivation {
      inherit name system;
      builder = "${busybox}/bin/sh";
      args = [
        "-euc"
        (preamble + script)
      ];
      PATH = "${busybox}/bin";
    };

  unpack = debs': builtins.concatStringsSep "\n" (map (file: "dpkg-deb -x ${file} unpacked") debs');

  # One loader and one set of libraries for every dynamic program below.
  libraries = run "debian-libraries" ''
    ${unpack (libraryDebs ++ map deb programDebs)}
    gather=$PWD/unpacked/usr/lib/x86_64-linux-gnu:$PWD/unpacked/lib/x86_64-linux-gnu:$PWD/unpacked/usr/lib/nix
    loader=$PWD/unpacked/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
    mkdir $out/lib
    cp -L $loader $out/lib/
    # Nix loads this one by name.
    cp -L unpacked/lib/x86_64-linux-gnu/libnss_dns.so.2 $out/lib/
    for program in ${builtins.concatStringsSep " " (map (p: "unpacked${p}") programFiles)}; do
      $loader --inhibit-cache --library-path $gather --list $program > needed
      if grep 'not found' needed; then
        echo "$program lacks these libraries: add their packages to debian-packages.txt" >&2
        exit 1
      fi
      sed -n "s,^.* => \($PWD/unpacked/[^ ]*\) .*,\1,p" needed
    done | sort -u | while read -r library; do
      cp -L $library $out/lib/
    done
  '';

  programDebs = [
    "efibootmgr"
    "grub-common"
    "grub2-common"
    "kmod"
    "udev"
    "util-linux"
  ];
  programFiles = [
    "/usr/bin/nix"
    "/bin/efibootmgr"
    "/usr/sbin/grub-install"
    "/usr/sbin/grub-probe"
    "/bin/udevadm"
    "/bin/kmod"
    "/sbin/blkid"
  ];

  # Shell code: install unpacked/FILE so that it starts as NAME with the loader above,
  # whatever is or is not in /lib of the machine it runs on.
  wrap = file: name: ''
    mkdir -p $out/bin $out/libexec
    test -e $out/libexec/${baseNameOf file} || cp -L unpacked${file} $out/libexec/
    {
      echo '#!${busybox}/bin/sh'
      echo "exec ${libraries}/lib/ld-linux-x86-64.so.2 --inhibit-cache --library-path ${libraries}/lib" \
        "--argv0 ${name} $out/libexec/${baseNameOf file} \"\$@\""
    } > $out/bin/${name}
    chmod 755 $out/bin/${name}
  '';

  nix = run "nix-2.8.0" ''
    ${unpack [ (deb "nix-bin") ]}
    ${builtins.concatStringsSep "\n" (
      map (wrap "/usr/bin/nix") [
        "nix"
        "nix-build"
        "nix-channel"
        "nix-collect-garbage"
        "nix-env"
        "nix-hash"
        "nix-instantiate"
        "nix-shell"
        "nix-store"
      ]
    )}
  '';

  grub = run "grub-2.06" ''
    ${unpack [
      (deb "grub-common")
      (deb "grub2-common")
      (deb "grub-pc-bin")
    ]}
    ${wrap "/usr/sbin/grub-install" "grub-install"}
    ${wrap "/usr/sbin/grub-probe" "grub-probe"}
    mkdir -p $out/lib/grub
    cp -r unpacked/usr/lib/grub/i386-pc $out/lib/grub/
  '';

  efibootmgr = run "efibootmgr-17" ''
    ${unpack [ (deb "efibootmgr") ]}
    ${wrap "/bin/efibootmgr" "efibootmgr"}
  '';

  util-linux = run "util-linux" ''
    ${unpack [ (deb "util-linux") ]}
    ${wrap "/sbin/blkid" "blkid"}
  '';

  kmod = run "kmod" ''
    ${unpack [ (deb "kmod") ]}
    ${wrap "/bin/kmod" "depmod"}
    ${wrap "/bin/kmod" "modprobe"}
  '';

  # udevd names network interfaces as the installer's environment names them.
  udev = run "udev" ''
    ${unpack [ (deb "udev") ]}
    ${wrap "/bin/udevadm" "udevadm"}
    ${wrap "/bin/udevadm" "systemd-udevd"}
    mkdir -p $out/lib/udev/rules.d $out/lib/systemd/network
    cd unpacked/lib/udev/rules.d
    cp 50-udev-default.rules 60-block.rules 60-persistent-storage.rules 64-btrfs.rules \
      75-net-description.rules 80-drivers.rules 80-net-setup-link.rules $out/lib/udev/rules.d/
    cp ../../systemd/network/99-default.link $out/lib/systemd/network/
  '';

  systemd-boot = run "systemd-boot" ''
    ${unpack [ (deb "systemd-boot-efi") ]}
    mkdir -p $out/lib/systemd/boot/efi
    cp unpacked/usr/lib/systemd/boot/efi/systemd-bootx64.efi $out/lib/systemd/boot/efi/
  '';

  # The generic kernel: Debian's cloud kernel has no AHCI.
  kernel = run "linux-6.1" ''
    ${unpack [ (debWith "linux-image.deb" "linux-image-") ]}
    cp unpacked/boot/vmlinuz-* $out/bzImage
    version=$(ls unpacked/lib/modules)
    ${kmod}/bin/depmod -b unpacked $version
    all=unpacked/lib/modules/$version
    mine=$out/lib/modules/$version
    mkdir -p $mine
    sed 's/#.*//' ${./kernel-modules.txt} | tr -s ' ' '\n' | sed '/^$/d' > wanted
    # Each wanted module with all that modules.dep says it needs.
    awk '
      NR == FNR { wanted[$1] = 1; next }
      {
        file = $1; sub(":$", "", file)
        name = file; sub(".*/", "", name); sub("[.]ko$", "", name); gsub("-", "_", name)
        path[name] = file; line[name] = $0
      }
      END {
        for (name in wanted)
          if (name in path) print line[name]
          else { print "no kernel module " name > "/dev/stderr"; missing = 1 }
        exit missing
      }
    ' wanted $all/modules.dep > chosen
    tr -s ': ' '\n' < chosen | sort -u | sed '/^$/d' | while read -r file; do
      mkdir -p $mine/$(dirname $file)
      cp $all/$file $mine/$file
    done
    cp $all/modules.builtin $all/modules.builtin.modinfo $all/modules.order $mine/
    ${kmod}/bin/depmod -b $out $version
  '';

  # What every initrd has in common; nixpkgs/nixos/modules/stage-1.nix puts one
  # configuration's part in front of it.
  base-initrd = run "base-initrd" ''
    mkdir -p root/bin root/sbin root/lib root/proc root/sys root/dev root/run root/sysroot
    cp ${busybox}/bin/busybox root/bin/
    ln -s busybox root/bin/sh
    ln -s ../bin/busybox root/sbin/modprobe
    cp -r ${kernel}/lib/modules root/lib/
    cp ${../programs/stage-1} root/init
    chmod -R u+w root
    chmod 755 root/init
    cd root
    find . | sort > ../list
    xargs touch -h -d @1 < ../list
    cpio -o -H newc -R 0:0 --renumber-inodes --ignore-devno < ../list 2> /dev/null | gzip -9 > $out/initrd
  '';

  programs = run "sample-programs" ''
    mkdir -p $out/bin $out/share
    cp ${../programs}/* $out/bin/
    rm $out/bin/stage-1
    mv $out/bin/inittab $out/share/
    cp ${../configuration.nix} $out/share/configuration.nix
    sed -i \
      -e 's,@busybox@,${busybox},g' \
      -e 's,@efibootmgr@,${efibootmgr},g' \
      -e 's,@grub@,${grub},g' \
      -e 's,@kernel@,${kernel},g' \
      -e 's,@kmod@,${kmod},g' \
      -e 's,@nix@,${nix},g' \
      -e 's,@systemd-boot@,${systemd-boot},g' \
      -e 's,@udev@,${udev},g' \
      -e 's,@util-linux@,${util-linux},g' \
      -e "s,@programs@,$out,g" \
      $out/bin/* $out/share/inittab
    chmod 755 $out/bin/*
  '';

  packages = {
    inherit
      base-initrd
      busybox
      efibootmgr
      grub
      kernel
      kmod
      nix
      programs
      systemd-boot
      udev
      util-linux
      ;
  };

  # nixpkgs as the target's channel has it: our stand-in plus the packages' addresses.
  channel = run "nixos-channel" ''
    cp -r ${../nixpkgs}/. $out/
    chmod -R u+w $out
    cat > $out/packages.nix <<'END'
    # Written by the build: where the prebuilt packages are.
    {
    ${builtins.concatStringsSep "\n" (
      map (name: "  ${name} = builtins.storePath \"${packages.${name}}\";") (builtins.attrNames packages)
    )}
    }
    END
  '';
in
packages // { inherit channel; }
