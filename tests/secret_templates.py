"""How 36 languages and formats write a value under a name; used by `secret_cases`.

A template holds ``{n}``, a name in the style that stands before it, and ``{v}``, the value. Three kinds: of values under a name, of values
in text such as comments, and of values in addresses.
"""

from __future__ import annotations

QUOTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "Python": ("snake", ('import os\n\n{n} = "{v}"\n', "class Config:\n    {n}: str = '{v}'\n", 'client = Client({n}="{v}", timeout=3)\n')),
    "JavaScript": ("camel", ("const {n} = '{v}';\n", 'module.exports = {{\n  {n}: "{v}",\n  port: 80,\n}};\n', "app.set('{n}', '{v}');\n")),
    "TypeScript": ("camel", ("export const {n}: string = '{v}';\n", "  private readonly {n} = `{v}`;\n")),
    "Java": ("camel", ('    private static final String {n} = "{v}";\n', '        props.setProperty("{n}", "{v}");\n')),
    "Kotlin": ("camel", ('    val {n} = "{v}"\n', 'private const val {n}: String = "{v}"\n')),
    "Scala": ("camel", ('  val {n}: String = "{v}"\n',)),
    "Go": ("camel", ('\tvar {n} string = "{v}"\n', '\t{n} := "{v}"\n', 'cfg := Config{{\n\t{n}: "{v}",\n}}\n')),
    "Rust": ("upper", ('const {n}: &str = "{v}";\n', '    let {n} = "{v}".to_string();\n')),
    "C": ("snake", ('static const char *{n} = "{v}";\n', 'char {n}[] = "{v}";\n')),
    "C header": ("upper", ('#define {n} "{v}"\n',)),
    "C++": ("snake", ('    std::string {n} = "{v}";\n', '    const auto {n}{{"{v}"}};\n')),
    "C#": ("camel", ('        public string {n} = "{v}";\n', '    var {n} = @"{v}";\n')),
    "PHP": ("snake", ("<?php\n${n} = '{v}';\n", "define('{n}', '{v}');\n", "    '{n}' => '{v}',\n")),
    "Ruby": ("snake", ("  {n} = '{v}'\n", '  config.{n} = "{v}"\n', "  :{n} => '{v}',\n", "  {n}: '{v}'\n")),
    "Perl": ("snake", ("my ${n} = '{v}';\n", "    {n} => '{v}',\n")),
    "Lua": ("snake", ('local {n} = "{v}"\n', '  {n} = "{v}",\n')),
    "R": ("snake", ('{n} <- "{v}"\n', 'Sys.setenv({n} = "{v}")\n')),
    "Julia": ("snake", ('const {n} = "{v}"\n',)),
    "Swift": ("camel", ('    let {n}: String = "{v}"\n', '    static let {n} = "{v}"\n')),
    "Objective-C": ("camel", ('NSString *{n} = @"{v}";\n',)),
    "Dart": ("camel", ("  final String {n} = '{v}';\n",)),
    "Elixir": ("snake", ('config :app, App.Repo,\n  {n}: "{v}"\n',)),
    "Haskell": ("camel", ('{n} :: String\n{n} = "{v}"\n',)),
    "Clojure": ("kebab", ('(def {n} "{v}")\n', '{{:{n} "{v}"}}\n')),
    "PowerShell": ("camel", ('${n} = "{v}"\n',)),
    "Terraform": ("snake", ('variable "{n}" {{\n  default = "{v}"\n}}\n', 'resource "x" "y" {{\n  {n} = "{v}"\n}}\n')),
    "JSON": ("camel", ('{{\n  "{n}": "{v}",\n  "debug": true\n}}\n', '{{"user":"ada","{n}":"{v}"}}\n')),
    "TOML": ("snake", ('[server]\n{n} = "{v}"\n',)),
    "Groovy": ("camel", ("    {n} '{v}'\n", "    {n} = '{v}'\n")),
    "Notebook": ("snake", ('{{"cell_type": "code", "source": ["import os\\n", "{n} = \\"{v}\\"\\n"]}}\n',)),
    "HTML": ("kebab", ('<input type="hidden" name="{n}" value="{v}">\n', '<meta name="{n}" content="{v}">\n')),
    "Markdown": ("snake", ("Set it up:\n\n```python\n{n} = '{v}'\n```\n",)),
}

BARE: dict[str, tuple[str, tuple[str, ...]]] = {
    "YAML": ("snake", ("server:\n  {n}: {v}\n  port: 80\n", '  - {n}: "{v}"\n')),
    "Compose": ("upper", ("    environment:\n      {n}: {v}\n", "    environment:\n      - {n}={v}\n")),
    "dotenv": ("upper", ("DEBUG=1\n{n}={v}\n", 'export {n}="{v}"\n')),
    "INI": ("snake", ("[db]\n{n} = {v}\nport = 3306\n", "[db]\n{n}={v}\n")),
    "Properties": ("dotted", ("spring.{n}={v}\n",)),
    "Shell": ("upper", ("export {n}={v}\n", "{n}='{v}'\ncurl $URL\n", "./run --{n}={v}\n")),
    "Dockerfile": ("upper", ("FROM x\nENV {n}={v}\n", "ENV {n} {v}\n")),
    "XML": ("camel", ("<server>\n  <{n}>{v}</{n}>\n</server>\n", '<add key="{n}" value="{v}"/>\n')),
    "Batch": ("upper", ("set {n}={v}\n",)),
}

PROSE: dict[str, tuple[str, ...]] = {
    "Python": ("# ask {v} about this\n", '__author__ = "{v}"\n', 'CONTACT = ["{v}"]\n'),
    "Java": ("/**\n * @author {v}\n */\n",),
    "C": ("/* Copyright (c) 2019 Ada Li <{v}> */\n", " * Contact: {v}\n"),
    "Markdown": ("Write to [{v}](docs/contact.md).\n", "Maintained by {v}.\n"),
    "JSON": ('{{"author": "Ada Li <{v}>"}}\n', '{{"email":"{v}"}}\n'),
    "YAML": ("maintainers:\n  - {v}\n", "to: {v}\n"),
    "HTML": ('<a href="mailto:{v}">write</a>\n',),
    "Shell": ("MAILTO={v}\n", 'git config user.email "{v}"\n'),
    "SQL": ("INSERT INTO people VALUES (1, 'Ada', '{v}');\n",),
    "CSV": ("1,Ada,{v},2020-01-01\n", "id;{v};x\n"),
    "Git log": ("commit message\n\nSigned-off-by: Ada Li <{v}>\n",),
    "JavaScript": ("const to = '{v}'\n", "  // {v}\n"),
    "C string": ('printf("to\\n{v}\\n");\n',),
}

HOSTS: dict[str, tuple[str, ...]] = {
    "Python": ('HOST = "{v}"\n', "sock.connect(('{v}', 8080))\n", "# moved to {v} in May\n"),
    "nginx": ("upstream app {{\n  server {v}:8080;\n}}\n", "allow {v};\n"),
    "Shell": ("ssh root@{v}\n", "ping -c 1 {v}\n", "scp x.tgz deploy@{v}:/srv\n"),
    "hosts": ("{v} db.internal\n",),
    "YAML": ("hosts:\n  - {v}\n", "address: {v}\n"),
    "JSON": ('{{"ip":"{v}","ok":true}}\n',),
    "log": ('{v} - - [10/Oct/2020:13:55:36 -0700] "GET / HTTP/1.0" 200 23\n', "connection from {v} port 22\n"),
    "URL": ('url = "http://{v}/admin"\n', "curl http://{v}:9200/_cat\n"),
    "Terraform": ('  cidr_blocks = ["{v}/32"]\n',),
    "JavaScript": ("server.listen(80, '{v}');\n",),
}
