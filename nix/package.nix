# Netinstall as a Python application, with the programs that it runs.
{
  lib,
  python3,
  attr,
  bcachefs-tools,
  btrfs-progs,
  coreutils,
  cryptsetup,
  dhcpcd,
  dosfstools,
  e2fsprogs,
  efibootmgr,
  f2fs-tools,
  gnutar,
  gzip,
  hdparm,
  iproute2,
  kmod,
  lvm2,
  mdadm,
  nvme-cli,
  systemd,
  thin-provisioning-tools,
  unionfs-fuse,
  util-linux,
  xfsprogs,
  xz,
  zstd,
  # further programs: zfs for ZFS pools, nfs-utils for answer files on NFS
  extraTools ? [ ],
}:
let
  tools = [
    attr
    bcachefs-tools
    btrfs-progs
    coreutils
    cryptsetup
    dhcpcd
    dosfstools
    e2fsprogs
    efibootmgr
    f2fs-tools
    gnutar
    gzip
    hdparm
    iproute2
    kmod
    lvm2
    mdadm
    nvme-cli
    systemd
    thin-provisioning-tools
    unionfs-fuse
    util-linux
    xfsprogs
    xz
    zstd
  ]
  ++ extraTools;
  tree-sitter-toml = python3.pkgs.callPackage ./tree-sitter-toml.nix { };

  package = python3.pkgs.buildPythonApplication {
    pname = "netinstall";
    version =
      (builtins.fromTOML (builtins.readFile ../pyproject.toml)).project.version;
    pyproject = true;

    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../initrd-hooks
        ../installer
        ../LICENSE
        ../README.md
        ../pyproject.toml
      ];
    };

    # The environment's PATH is never used (installer/act/run.py), so the programs are named where
    # their folders are listed.
    postPatch = ''
      substituteInPlace installer/model/programs.py \
        --replace-fail '"/run/current-system/sw/bin:' '"${lib.makeBinPath tools}:/run/current-system/sw/bin:'
      substituteInPlace installer/init/devices.py \
        --replace-fail '"/lib/systemd/systemd-udevd"' '"${systemd}/lib/systemd/systemd-udevd"'
      # dhcpcd runs it with a PATH of its own
      substituteInPlace installer/init/dhcp-event \
        --replace-fail 'PATH=/usr/sbin:' 'PATH=${lib.makeBinPath [ coreutils ]}:/usr/sbin:'
    '';

    build-system = [ python3.pkgs.hatchling ];

    dependencies = with python3.pkgs; [
      aiohttp
      psutil
      pydantic
      pynacl
      pyparted
      pyudev
      requests
      rich
      tree-sitter
      tree-sitter-json
      tree-sitter-toml
      zstandard
    ];

    pythonImportsCheck = [ "installer.cli" ];

    # What Nix checks an answer file against is what the agent reads it by.
    doInstallCheck = true;
    installCheckPhase = ''
      runHook preInstallCheck
      $out/bin/netinstall schema | cmp - ${./schemas/answer-file.json}
      $out/bin/netinstall schema --site | cmp - ${./schemas/site-file.json}
      runHook postInstallCheck
    '';

    passthru = {
      inherit tools;
      # A Python that has it as a module, for init: what it starts is this Python again.
      environment = python3.withPackages (_: [ (python3.pkgs.toPythonModule package) ]);
    };

    meta = {
      description = "Unattended NixOS installer for machines that boot from the network";
      license = lib.licenses.mit;
      platforms = [ "x86_64-linux" ];
      mainProgram = "netinstall";
    };
  };
in
package
