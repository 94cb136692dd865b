# NixOS options from a JSON Schema (draft 2020-12, as pydantic writes it), so that a mistake is found
# when Nix evaluates, with the option's name.
#
# What is not required may be null, and null is left out of the file: the program's own default
# counts then. What a schema cannot say (two fields that exclude each other) is left to
# `netinstall check`, which runs when the file is built.
{ lib }:
let
  inherit (lib) types;

  optional = condition: set: if condition then set else { };

  unionOf = schema: schema.anyOf or schema.oneOf or [ ];
  isNull = schema: (schema.type or "") == "null";
  isObject = schema: schema ? properties;

  # Nix has POSIX extended regular expressions, which know none of these of ECMA-262.
  isForeign = pattern: builtins.match ".*([(][?]|\\\\[A-Za-z0-9]|[*+?}][?]).*" pattern != null;

  # A pattern may match anywhere in a JSON string; Nix matches the whole of it.
  whole =
    pattern:
    let
      found = builtins.match "([\\^]?)(.*[^$]|)([$]?)" pattern;
      start = if builtins.elemAt found 0 == "" then ".*" else "";
      end = if builtins.elemAt found 2 == "" then ".*" else "";
    in
    "${start}(${builtins.elemAt found 1})${end}";

  either =
    alternatives:
    if builtins.length alternatives == 1 then
      builtins.head alternatives
    else
      types.either (builtins.head alternatives) (either (builtins.tail alternatives));

  # NixOS's options make a type with other modules anew, which forgets what was changed in it. Without
  # `emptyValue` a required field that is missing is an error, instead of an empty set.
  submodule =
    modules:
    types.submodule modules
    // {
      emptyValue = { };
      substSubModules = submodule;
    };

  listOf =
    schema: element:
    let
      least = schema.minItems or 0;
      most = schema.maxItems or null;
      type = types.listOf element;
      count = if most == null then "at least ${toString least}" else "${toString least} to ${toString most}";
    in
    if least == 0 && most == null then
      type
    else
      types.addCheck type (
        list: builtins.length list >= least && (most == null || builtins.length list <= most)
      )
      // {
        description = "${type.description} with ${count} elements";
        emptyValue = { };
        substSubModules = modules: listOf schema (element.substSubModules modules);
      };

  generate =
    {
      schema,
      # what is accepted where the schema allows anything
      freeform,
    }:
    let
      # Beside a $ref there may be a description or a default.
      resolved =
        part:
        if part ? "$ref" then
          resolved schema."$defs".${baseNameOf part."$ref"} // removeAttrs part [ "$ref" ]
        else
          part;

      typeOf =
        given:
        let
          part = resolved given;
          alternatives = map resolved (unionOf part);
          others = builtins.filter (each: !isNull each) alternatives;
          kind = part.type or "";
        in
        if part ? const then
          types.enum [ part.const ]
        else if part ? enum then
          types.enum part.enum
        else if isObject part then
          submodule (submoduleOf part)
        else if others != [ ] then
          let
            # a set tells by nothing which of several submodules it is meant to be
            type =
              if builtins.length (builtins.filter isObject others) > 1 then
                freeform
              else
                either (map typeOf others);
          in
          if builtins.any isNull alternatives then types.nullOr type else type
        else if kind == "string" then
          if part ? pattern && !isForeign part.pattern then
            types.strMatching (whole part.pattern)
          else if part ? minLength then
            types.addCheck types.str (value: builtins.stringLength value >= part.minLength)
            // {
              description = "string of ${toString part.minLength} or more characters";
            }
          else
            types.str
        else if kind == "integer" then
          if part ? minimum && part ? maximum then
            types.ints.between part.minimum part.maximum
          else if part ? minimum then
            types.addCheck types.int (value: value >= part.minimum)
            // {
              description = "integer of at least ${toString part.minimum}";
            }
          else
            types.int
        else if kind == "number" then
          types.either types.int types.float
        else if kind == "boolean" then
          types.bool
        else if kind == "array" && part ? items then
          listOf part (typeOf part.items)
        else if kind == "object" && builtins.isAttrs (part.additionalProperties or null) then
          types.attrsOf (typeOf part.additionalProperties)
        else
          freeform;

      submoduleOf =
        part:
        {
          options = builtins.mapAttrs (optionOf (part.required or [ ])) part.properties;
        }
        // optional (part.additionalProperties or true == true) { freeformType = freeform; };

      optionOf =
        required: name: given:
        let
          part = resolved given;
          type = typeOf given;
          examples = part.examples or [ ];
          nullable = builtins.any isNull (unionOf part);
          default =
            if part.default or null != null then
              " If it is not given: `${builtins.toJSON part.default}`."
            else
              "";
        in
        lib.mkOption (
          {
            description = "${part.description or part.title or name}${default}";
            type = if builtins.elem name required || nullable then type else types.nullOr type;
          }
          // (
            if part ? const then
              { default = part.const; }
            else
              optional (!builtins.elem name required) { default = null; }
          )
          // optional (examples != [ ]) { example = builtins.head examples; }
        );
    in
    submodule (submoduleOf schema);

  # What goes into the file: everything that was given.
  given =
    value:
    if builtins.isAttrs value then
      builtins.mapAttrs (_: given) (lib.filterAttrs (_: each: each != null) value)
    else if builtins.isList value then
      map given value
    else
      value;

  read = file: builtins.fromJSON (builtins.readFile file);
in
{
  inherit given;

  /*
    The type of an option that holds an answer file, or a site file. Field names are those of the
    file (`by-id`). `freeform` is the type of what the schema leaves open, by default that of
    TOML (`(pkgs.formats.toml { }).type`).
  */
  answerFile =
    {
      freeform ? types.anything,
    }:
    generate {
      inherit freeform;
      schema = read ./schemas/answer-file.json;
    };
  siteFile =
    {
      freeform ? types.anything,
    }:
    generate {
      inherit freeform;
      schema = read ./schemas/site-file.json;
    };
}
