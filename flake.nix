{
  description = "Unattended NixOS installer for machines that boot from the network";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    let
      # x86-64 only: see the README
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      netinstall = import ./default.nix { inherit pkgs; };
    in
    {
      packages.${system} = netinstall.packages // {
        default = netinstall.packages.netinstall;
      };

      inherit (netinstall) nixosModules lib;

      overlays.default = final: _: {
        netinstall = final.callPackage ./nix/package.nix { };
      };

      checks.${system} = netinstall.checks // {
        inherit (netinstall.packages) netinstall;
      };

      devShells.${system}.default = netinstall.shell;

      formatter.${system} = pkgs.nixfmt-rfc-style or pkgs.nixfmt;
    };
}
