# The sample system's packages: store paths made of the files of Debian packages.
#
#   nix-build packages -A channel --arg debs /directory/with/the/.deb/files \
#     [--arg storage true] [--arg network true]
#
# Used on the build machine only.  What is built here reaches the target through
# the tarball; in the target, ../nixpkgs finds it under the names in packages.nix.
{
  debs,
  # The variant that can live on arrays, LUKS and volume groups, and boot by either firmware.
  storage ? false,
  # The variant with systemd-networkd, bonds and VLANs.
  network ? false,
}:
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

  optional = condition: value: if condition then [ value ] else [ ];
  namesIn =
    file:
    builtins.filter (line: builtins.isString line && builtins.match "[a-z0-9].*" line != null) (
      builtins.split "\n" (builtins.readFile file)
    );
  listed =
    namesIn ./debian-packages.txt
    ++ builtins.concatMap namesIn (optional storage ./debian-packages-storage.txt)
    ++ builtins.concatMap namesIn (optional network ./debian-packages-network.txt);
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
    ${libraryFunctions}
    mkdir $out/lib
    cp -L $loader $out/lib/
    # Nix loads this one by name.
    cp -L unpacked/lib/x86_64-linux-gnu/libnss_dns.so.2 $out/lib/
    for file in ${toString (if storage then tpmFiles else [ ])}; do
      cp -L unpacked$file $out/lib/
    done
    libraries_of ${toString programFiles} > found
    while read -r library; do
      cp -L $library $out/lib/
    done < found
  '';

  # Shell functions: libraries_of FILE... prints the libraries in unpacked/ that programs need.
  libraryFunctions = ''
    at=unpacked/usr/lib/x86_64-linux-gnu:unpacked/lib/x86_64-linux-gnu
    gather=$at:unpacked/usr/lib/nix:unpacked/usr/lib/x86_64-linux-gnu/systemd
    loader=$PWD/unpacked/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
    libraries_of() {
      for program in "$@"; do
        $loader --inhibit-cache --library-path $gather --list unpacked$program > needed
        # what is found by an absolute path is this machine's
        if grep -e 'not found' -e '=> /' needed | grep -v $loader >&2; then
          echo "$program lacks these libraries: add their packages to debian-packages*.txt" >&2
          exit 1
        fi
        sed -n "s,^.* => \(unpacked/[^ ]*\) .*,\1,p" needed
      done | sort -u
    }
  '';

  programDebs = [
    "efibootmgr"
    "grub-common"
    "grub2-common"
    "kmod"
    "udev"
    "util-linux"
  ]
  ++ (if storage then storageDebs else [ ])
  ++ (if network then [ "systemd" ] else [ ]);
  programFiles = [
    "/usr/bin/nix"
    "/bin/efibootmgr"
    "/usr/sbin/grub-install"
    "/usr/sbin/grub-probe"
    "/bin/udevadm"
    "/bin/kmod"
    "/sbin/blkid"
  ]
  ++ (if storage then storageFiles ++ tpmFiles else [ ])
  ++ (if network then networkFiles else [ ]);

  networkFiles = [
    "/lib/systemd/systemd-networkd"
    "/lib/systemd/systemd-networkd-wait-online"
  ];

  storageDebs = [
    "btrfs-progs"
    "coreutils"
    "cryptsetup-bin"
    "lvm2"
    "mdadm"
    "systemd"
    "thin-provisioning-tools"
  ];
  storageFiles = [
    "/bin/btrfs"
    "/bin/cp"
    "/sbin/cryptsetup"
    "/sbin/lvm"
    "/sbin/mdadm"
    "/usr/sbin/pdata_tools"
  ];
  # cryptsetup loads the first by its place, and that the others by name.
  tpmFiles = [
    "/usr/lib/x86_64-linux-gnu/cryptsetup/libcryptsetup-token-systemd-tpm2.so"
  ]
  ++ map (name: "/usr/lib/x86_64-linux-gnu/libtss2-${name}.so.0") [
    "esys"
    "mu"
    "rc"
    "tcti-device"
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
    ${unpack (optional storage (deb "grub-efi-amd64-bin"))}
    ${wrap "/usr/sbin/grub-install" "grub-install"}
    ${wrap "/usr/sbin/grub-probe" "grub-probe"}
    mkdir -p $out/lib/grub
    cp -r unpacked/usr/lib/grub/i386-pc $out/lib/grub/
    if [ -d unpacked/usr/lib/grub/x86_64-efi ]; then
      cp -r unpacked/usr/lib/grub/x86_64-efi $out/lib/grub/
      # ready images with everything in them, which grub-install does not use
      rm -rf $out/lib/grub/x86_64-efi/monolithic
    fi
  '';

  # For the running system, grub-install's questions, and initrds: initrd/NAME lists "FILE PLACE"
  # for what nixpkgs/nixos/modules/storage.nix may choose, with loader and libraries where they
  # are found without being told.
  storage-tools = run "storage-tools" ''
    ${unpack (libraryDebs ++ map deb ([ "util-linux" ] ++ storageDebs))}
    ${libraryFunctions}
    ${wrap "/bin/btrfs" "btrfs"}
    ${wrap "/sbin/cryptsetup" "cryptsetup"}
    ${wrap "/sbin/mdadm" "mdadm"}
    ${builtins.concatStringsSep "\n" (
      map (wrap "/sbin/lvm") [
        "lvm"
        "lvs"
        "pvs"
        "vgchange"
        "vgs"
      ]
    )}
    ${wrap "/usr/sbin/pdata_tools" "thin_check"}

    mkdir $out/initrd
    lib=/lib/x86_64-linux-gnu
    part() { # NAME FILE PLACE
      {
        echo ${libraries}/lib/ld-linux-x86-64.so.2 lib64/ld-linux-x86-64.so.2
        libraries_of $2 | while read -r library; do
          name=$(basename $library)
          echo ${libraries}/lib/$name lib/x86_64-linux-gnu/$name
        done
        if [ -e $out/libexec/$(basename $2) ]; then
          echo $out/libexec/$(basename $2) $3
        else
          echo ${libraries}/lib/$(basename $2) $3
        fi
      } >> $out/initrd/$1
    }
    part btrfs /bin/btrfs bin/btrfs
    part cryptsetup /sbin/cryptsetup bin/cryptsetup
    # glibc loads it when a thread ends
    part cryptsetup $lib/libgcc_s.so.1 lib/x86_64-linux-gnu/libgcc_s.so.1
    part lvm2 /sbin/lvm bin/lvm
    part mdadm /sbin/mdadm bin/mdadm
    cp -L unpacked/sbin/blkid $out/libexec/
    part mdadm /sbin/blkid bin/blkid
    part thin /usr/sbin/pdata_tools bin/thin_check
    for file in ${toString tpmFiles}; do
      # Debian's cryptsetup looks below /lib, which is /usr/lib there
      part tpm2 $file ''${file#/usr/}
    done
  '';

  coreutils = run "coreutils" ''
    ${unpack [ (deb "coreutils") ]}
    ${wrap "/bin/cp" "cp"}
  '';

  networkd = run "networkd" ''
    ${unpack [ (deb "systemd") ]}
    ${builtins.concatStringsSep "\n" (map (file: wrap file (baseNameOf file)) networkFiles)}
  '';

  efibootmgr = run "efibootmgr-17" ''
    ${unpack [ (deb "efibootmgr") ]}
    ${wrap "/bin/efibootmgr" "efibootmgr"}
  '';

  util-linux = run "util-linux" ''
    ${unpack [ (deb "util-linux") ]}
    ${wrap "/sbin/blkid" "blkid"}
    # a stand-in: the real one needs libmount and all that it needs; called as `--quiet FOLDER`
    printf '%s\n' '#!${busybox}/bin/sh' \
      'exec ${busybox}/bin/grep -q " $2 " /proc/self/mounts' > $out/bin/mountpoint
    chmod 755 $out/bin/mountpoint
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
    cat ${./kernel-modules.txt} ${toString (optional storage ./kernel-modules-storage.txt)} \
      ${toString (optional network ./kernel-modules-network.txt)} |
      sed 's/#.*//' | tr -s ' ' '\n' | sed '/^$/d' > wanted
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
      -e 's,@networkd@,${if network then networkd else "/var/empty"},g' \
      -e 's,@nix@,${nix},g' \
      -e 's,@storage-tools@,${if storage then storage-tools else "/var/empty"},g' \
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
  }
  // (if storage then { inherit coreutils storage-tools; } else { })
  // (if network then { inherit networkd; } else { });

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
