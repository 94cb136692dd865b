# The grammar of which installer/observe knows the nodes. nixpkgs has an older one (0.5) among
# python3Packages.tree-sitter-grammars.
{
  lib,
  buildPythonPackage,
  fetchPypi,
  setuptools,
}:
buildPythonPackage rec {
  pname = "tree-sitter-toml";
  version = "0.7.0";
  pyproject = true;

  src = fetchPypi {
    pname = "tree_sitter_toml";
    inherit version;
    hash = "sha256-KeJXYS+o8MH8vE5+CN3FYRafFyUmUwLmTYEIY1QUSnA=";
  };

  build-system = [ setuptools ];

  pythonImportsCheck = [ "tree_sitter_toml" ];

  meta = {
    description = "TOML grammar for tree-sitter";
    homepage = "https://github.com/tree-sitter-grammars/tree-sitter-toml";
    license = lib.licenses.mit;
  };
}
