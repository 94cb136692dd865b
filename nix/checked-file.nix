# A file that Netinstall finds no mistake in; a derivation that fails with all of them otherwise.
{
  runCommand,
  package,
  file,
  verb,
}:
runCommand file.name { nativeBuildInputs = [ package ]; } ''
  netinstall ${verb} ${file}
  cp ${file} $out
''
