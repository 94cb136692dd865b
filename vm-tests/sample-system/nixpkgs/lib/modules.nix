# A small module system with the interface of NixOS's: options with types and
# defaults, `imports`, mkIf, mkMerge, mkDefault, mkForce, and an error for every
# definition of an option that does not exist.
let
  inherit (builtins)
    all
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    hasAttr
    head
    isAttrs
    isFunction
    isList
    isString
    length
    map
    mapAttrs
    ;

  defaultPriority = 100;

  mkOption = attributes: attributes // { _type = "option"; };
  mkEnableOption =
    what:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkOptionDefault = mkOverride 1500;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkOrder = priority: content: {
    _type = "order";
    inherit priority content;
  };
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  isType = type: value: isAttrs value && (value._type or null) == type;
  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  showLocation = concatStringsSep ".";

  show =
    value:
    if isFunction value then
      "<function>"
    else if isType "override" value || isType "order" value then
      show value.content
    else if isAttrs value && !(value ? type && value.type == "derivation") then
      "{ ${concatStringsSep " " (map (name: "${name} = …;") (attrNames value))} }"
    else if isList value then
      "[ ${concatStringsSep " " (map show value)} ]"
    else if builtins.isPath value then
      toString value
    else
      builtins.toJSON value;
  showDefinitions =
    definitions: concatStringsSep "" (map (d: "\n- In `${d.file}': ${show d.value}") definitions);

  # -- types: check :: value -> bool, merge :: location -> definitions -> value

  mergeOne =
    location: definitions:
    let
      first = (head definitions).value;
    in
    if all (d: d.value == first) definitions then
      first
    else
      throw "The option `${showLocation location}' has conflicting definition values:${showDefinitions definitions}";

  simple = description: check: {
    inherit description check;
    merge = mergeOne;
  };

  types = rec {
    bool = simple "boolean" builtins.isBool;
    int = simple "signed integer" builtins.isInt;
    float = simple "floating point number" builtins.isFloat;
    str = simple "string" isString;
    path = simple "absolute path" (
      value: builtins.isPath value || (isString value && builtins.substring 0 1 value == "/")
    );
    package = simple "package" (value: isAttrs value || isString value || builtins.isPath value);
    raw = simple "raw value" (_: true);
    lines = {
      description = "strings concatenated with \"\\n\"";
      check = isString;
      merge = _: definitions: concatStringsSep "\n" (map (d: d.value) definitions);
    };
    strMatching =
      pattern:
      simple "string matching the pattern ${pattern}" (
        value: isString value && builtins.match pattern value != null
      );
    ints = {
      between =
        low: high:
        simple "integer between ${toString low} and ${toString high} (both inclusive)" (
          value: builtins.isInt value && value >= low && value <= high
        );
    };
    enum =
      values:
      simple "one of ${concatStringsSep ", " (map builtins.toJSON values)}" (value: elem value values);
    nullOr = inner: {
      description = "null or ${inner.description}";
      check = value: value == null || inner.check value;
      merge =
        location: definitions:
        if all (d: d.value == null) definitions then
          null
        else if elem null (map (d: d.value) definitions) then
          mergeOne location definitions
        else
          inner.merge location definitions;
    };
    either = left: right: {
      description = "${left.description} or ${right.description}";
      check = value: left.check value || right.check value;
      merge =
        location: definitions:
        if all (d: left.check d.value) definitions then
          left.merge location definitions
        else
          right.merge location definitions;
    };
    addCheck = type: check: type // { check = value: type.check value && check value; };
    # A value that is converted before `final` sees it.
    coercedTo = from: convert: final: {
      inherit (final) description;
      check = value: from.check value || final.check value;
      merge =
        location: definitions:
        final.merge location (
          map (d: d // { value = if from.check d.value then convert d.value else d.value; }) definitions
        );
    };
    listOf = inner: {
      description = "list of ${inner.description}";
      check = isList;
      merge =
        location: definitions:
        concatMap (
          d:
          builtins.genList (
            i:
            mergeDefinitions (location ++ [ "[${toString (i + 1)}]" ]) inner [
              (d // { value = builtins.elemAt d.value i; })
            ]
          ) (length d.value)
        ) definitions;
    };
    attrsOf = inner: {
      description = "attribute set of ${inner.description}";
      check = isAttrs;
      merge =
        location: definitions:
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = mergeDefinitions (location ++ [ name ]) inner (
              map (d: d // { value = d.value.${name}; }) (filter (d: hasAttr name d.value) definitions)
            );
          }) (filter (name: given name definitions) (unique (concatMap (d: attrNames d.value) definitions)))
        );
    };
    # Any value; attribute sets are merged, lists concatenated.
    anything = {
      description = "anything";
      check = _: true;
      merge =
        location: definitions:
        if all (d: isAttrs d.value && !(d.value ? type && d.value.type == "derivation")) definitions then
          (attrsOf anything).merge location definitions
        else if all (d: isList d.value) definitions then
          concatMap (d: d.value) definitions
        else
          mergeOne location definitions;
    };
    attrs = anything // {
      description = "attribute set";
      check = isAttrs;
    };
    submodule = module: {
      description = "submodule";
      check = value: isAttrs value || isFunction value;
      merge =
        location: definitions:
        (evalModules {
          prefix = location;
          specialArgs.name = builtins.elemAt location (length location - 1);
          modules = [
            module
          ]
          ++ map (
            d:
            if isFunction d.value then
              d.value
            else
              {
                _file = d.file;
                config = d.value;
              }
          ) definitions;
        }).config;
    };
  };

  # -- definitions

  # mkIf, mkMerge, mkOverride and mkOrder around one value -> a list of plain definitions.
  discharge =
    definition:
    let
      value = definition.value;
    in
    if isType "if" value then
      if value.condition then discharge (definition // { value = value.content; }) else [ ]
    else if isType "merge" value then
      concatMap (content: discharge (definition // { value = content; })) value.contents
    else if isType "override" value then
      discharge (
        definition
        // {
          inherit (value) priority;
          value = value.content;
        }
      )
    else if isType "order" value then
      discharge (
        definition
        // {
          order = value.priority;
          value = value.content;
        }
      )
    else
      [ definition ];

  # Is there a definition of this attribute whose mkIf holds?
  given =
    name: definitions:
    concatMap (d: discharge (d // { value = d.value.${name}; })) (
      filter (d: hasAttr name d.value) definitions
    ) != [ ];

  mergeDefinitions =
    location: type: definitions:
    let
      discharged = concatMap discharge definitions;
      priorityOf = d: d.priority or defaultPriority;
      strongest = foldl' (p: d: if priorityOf d < p then priorityOf d else p) 9999 discharged;
      orderOf = d: d.order or 1000;
      chosen = builtins.sort (a: b: orderOf a < orderOf b) (
        filter (d: priorityOf d == strongest) discharged
      );
      wrong = filter (d: !type.check d.value) chosen;
    in
    if chosen == [ ] then
      throw "The option `${showLocation location}' was accessed but has no value defined. Try setting the option."
    else if wrong != [ ] then
      throw "A definition for option `${showLocation location}' is not of type `${type.description}'. Definition values:${showDefinitions wrong}"
    else
      type.merge location chosen;

  # -- modules

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      arguments = specialArgs // {
        inherit config options;
        lib = import ./default.nix;
      };

      # `writtenIn`: the file of a module that is not a file of its own.
      load =
        writtenIn: module:
        if builtins.isPath module || isString module then
          normalise (toString module) (import module)
        else
          normalise (module._file or writtenIn) module;

      normalise =
        file: module:
        let
          value = if isFunction module then module arguments else module;
          structured = value ? config || value ? options;
        in
        if !isAttrs value then
          throw "The module `${file}' is neither an attribute set nor a function that returns one."
        else
          {
            inherit file;
            imports = value.imports or [ ];
            options = value.options or { };
            config =
              if !structured then
                removeAttrs value [
                  "imports"
                  "_file"
                ]
              else if
                removeAttrs value [
                  "imports"
                  "options"
                  "config"
                  "_file"
                ] != { }
              then
                throw "Module `${file}' has an unsupported attribute `${
                  head (
                    attrNames (
                      removeAttrs value [
                        "imports"
                        "options"
                        "config"
                        "_file"
                      ]
                    )
                  )
                }'. Its definitions belong under `config'."
              else
                value.config or { };
          };

      closure =
        writtenIn: module:
        let
          loaded = load writtenIn module;
        in
        [ loaded ] ++ concatMap (closure loaded.file) loaded.imports;

      loaded = concatMap (closure "<unknown-file>") modules;

      options = foldl' mergeOptionTrees { } (map (m: m.options) loaded);
      mergeOptionTrees =
        left: right:
        left
        // mapAttrs (
          name: value:
          if left ? ${name} then
            if isType "option" value || isType "option" left.${name} then
              throw "The option `${name}' is declared twice."
            else
              mergeOptionTrees left.${name} value
          else
            value
        ) right;

      # A definition of a whole option set, its mkIf and mkMerge pushed down one level.
      pushDown =
        definition:
        let
          value = definition.value;
        in
        if isType "merge" value then
          concatMap (content: pushDown (definition // { value = content; })) value.contents
        else if isType "if" value then
          map (
            d: d // { value = mapAttrs (_: content: mkIf value.condition content) d.value; }
          ) (pushDown (definition // { value = value.content; }))
        else if isType "override" value then
          map (
            d: d // { value = mapAttrs (_: content: mkOverride value.priority content) d.value; }
          ) (pushDown (definition // { value = value.content; }))
        else
          [ definition ];

      evaluate =
        location: tree: definitions:
        let
          pushed = concatMap pushDown definitions;
          noSets = filter (d: !isAttrs d.value) pushed;
          under =
            name: map (d: d // { value = d.value.${name}; }) (filter (d: hasAttr name d.value) pushed);
          unknown = filter (name: !(tree ? ${name})) (unique (concatMap (d: attrNames d.value) pushed));
          complaint = throw "The option `${
            showLocation (location ++ [ (head unknown) ])
          }' does not exist. Definition values:${showDefinitions (under (head unknown))}";
          value =
            name: node:
            let
              here = location ++ [ name ];
              mine = under name;
              byDefault =
                if node ? default then
                  [
                    {
                      file = "the default";
                      priority = 1500;
                      value = node.default;
                    }
                  ]
                else
                  [ ];
              merged = mergeDefinitions here node.type (mine ++ byDefault);
            in
            if isType "option" node then
              if node ? apply then node.apply merged else merged
            else
              evaluate here node mine;
        in
        if noSets != [ ] then
          throw "A definition for option `${showLocation location}' is not of type `attribute set'. Definition values:${showDefinitions noSets}"
        else if unknown != [ ] then
          complaint
        else
          mapAttrs value tree;

      definitions = map (m: {
        inherit (m) file;
        value = m.config;
      }) loaded;
      config = evaluate prefix options definitions;

      # Nix is lazy: what nothing reads would not be found to be wrong.
      check =
        tree: values: definitions:
        all (
          name:
          let
            node = tree.${name};
            mine = map (d: d // { value = d.value.${name}; }) (
              filter (d: hasAttr name d.value) (concatMap pushDown definitions)
            );
          in
          if isType "option" node then
            concatMap discharge mine == [ ] || builtins.seq values.${name} true
          else
            check node values.${name} mine
        ) (attrNames values);
    in
    {
      inherit options;
      config = builtins.seq (check options config definitions) config;
    };
in
{
  inherit
    evalModules
    mkAfter
    mkBefore
    mkDefault
    mkEnableOption
    mkForce
    mkIf
    mkMerge
    mkOption
    mkOptionDefault
    mkOrder
    mkOverride
    types
    ;
}
