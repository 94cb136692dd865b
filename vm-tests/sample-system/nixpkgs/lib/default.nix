# The part of nixpkgs' `lib` that a configuration written by an installer may use.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    filter
    isAttrs
    listToAttrs
    map
    ;

  attrs = rec {
    inherit (builtins) mapAttrs;
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    filterAttrs =
      keep: set:
      listToAttrs (
        map (name: {
          inherit name;
          value = set.${name};
        }) (filter (name: keep name set.${name}) (attrNames set))
      );
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    recursiveUpdate =
      left: right:
      left
      // mapAttrs (
        name: value:
        if left ? ${name} && isAttrs left.${name} && isAttrs value then recursiveUpdate left.${name} value else value
      ) right;
  };

  lists = {
    inherit (builtins)
      concatLists
      elem
      filter
      head
      length
      ;
    inherit (builtins) all any;
    concatMap = builtins.concatMap;
    flatten = list: builtins.concatLists (map (x: if builtins.isList x then x else [ x ]) list);
    optional = condition: element: if condition then [ element ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    unique = builtins.foldl' (seen: x: if builtins.elem x seen then seen else seen ++ [ x ]) [ ];
  };

  strings = rec {
    inherit (builtins) concatStringsSep replaceStrings;
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    concatMapStrings = concatMapStringsSep "";
    concatStrings = concatStringsSep "";
    concatLines = lines: concatStringsSep "" (map (line: "${line}\n") lines);
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    optionalString = condition: text: if condition then text else "";
  };

  modules = import ./modules.nix;
in
attrs // lists // strings // modules // { inherit (modules) types; }
