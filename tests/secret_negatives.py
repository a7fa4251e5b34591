"""Hard negatives: shapes of real files that look like secrets and are none; used by `secret_cases`.

Each shape is a function of a random generator, so that no two cases are the same and nothing in the repository looks alive.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

HEX = "0123456789abcdef"
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LOWER = ALNUM[26:52]
BASE64 = ALNUM + "+/"


def chars(rng: random.Random, alphabet: str, length: int) -> str:
    """Return random characters."""
    return "".join(rng.choice(alphabet) for _ in range(length))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _version(rng: random.Random) -> str:
    return f"{rng.randint(1, 12)}.{rng.randint(0, 20)}.{rng.randint(0, 99)}.{rng.randint(1, 250)}"


Negative = Callable[[random.Random], str]

LOCKS: dict[str, Negative] = {
    "npm lock": lambda r: f'"x": {{\n  "version": "1.2.3",\n  "integrity": "sha512-{chars(r, BASE64, 86)}=="\n}}\n',
    "yarn lock": lambda r: f'left-pad@^1.3.0:\n  resolved "https://registry.yarnpkg.com/left-pad/-/x.tgz#{chars(r, HEX, 40)}"\n',
    "poetry lock": lambda r: f'files = [\n    {{file = "a-1.0.whl", hash = "sha256:{chars(r, HEX, 64)}"}},\n]\n',
    "go.sum": lambda r: f"github.com/pkg/errors v0.9.1 h1:{chars(r, BASE64, 43)}=\n",
    "cargo lock": lambda r: f'name = "token"\nversion = "0.1.2"\nchecksum = "{chars(r, HEX, 64)}"\n',
    "git commit": lambda r: f"commit {chars(r, HEX, 40)}\nMerge: {chars(r, HEX, 7)} {chars(r, HEX, 7)}\n",
    "submodule": lambda r: f"-Subproject commit {chars(r, HEX, 40)}\n",
    "docker digest": lambda r: f"FROM python@sha256:{chars(r, HEX, 64)}\n",
    "action pin": lambda r: f"      - uses: actions/checkout@{chars(r, HEX, 40)} # v4.1.1\n",
    "sri": lambda r: f'<script src="a.js" integrity="sha384-{chars(r, BASE64, 64)}" crossorigin="anonymous"></script>\n',
    "md5 list": lambda r: f"{chars(r, HEX, 32)}  dist/app.js\n",
    "conda": lambda r: f"  - md5: {chars(r, HEX, 32)}\n    sha256: {chars(r, HEX, 64)}\n",
}
BLOBS: dict[str, Negative] = {
    "image": lambda r: f'<img src="data:image/png;base64,iVBORw0KGgo{chars(r, BASE64, 200)}=" alt="">\n',
    "font": lambda r: f"src: url(data:font/woff2;base64,d09GMg{chars(r, BASE64, 160)});\n",
    "minified": lambda r: f"!function(e,t){{var n={{}};e.key=t.token;function r(e){{return n[e]}}r.{chars(r, ALNUM[:52], 2)}=e}}(this);",
    "minified assign": lambda r: f"e.password=t,e.token=n.{chars(r, ALNUM[:52], 3)},e.secret=o(12),a.apiKey=i.apiKey;",
    "source map": lambda r: f'{{"version":3,"mappings":"{chars(r, ALNUM + ";,", 120)}"}}\n',
    "uuid": lambda r: f'ENTITY_ID = "{_uuid(r)}"\n',
    "guid": lambda r: f'Project("{{{_uuid(r).upper()}}}") = "App"\n',
    "public key": lambda r: f"-----BEGIN PUBLIC KEY-----\n{chars(r, BASE64, 64)}\n{chars(r, BASE64, 40)}\n-----END PUBLIC KEY-----\n",
    "certificate": lambda r: f"-----BEGIN CERTIFICATE-----\nMII{chars(r, BASE64, 61)}\n-----END CERTIFICATE-----\n",
    "ssh public": lambda r: f"ssh-rsa AAAAB3NzaC1yc2E{chars(r, BASE64, 200)} ada\n",
    "key header": lambda r: (
        f'if "-----BEGIN RSA PRIVATE KEY-----" in text[:{r.randint(10, 99)}]:\n    return "-----END RSA PRIVATE KEY-----"\n'
    ),
    "bcrypt": lambda r: f"password_hash = '$2b$12${chars(r, ALNUM, 53)}'\n",
    "shadow": lambda r: f'user.password = "$6$rounds=5000${chars(r, ALNUM, 16)}${chars(r, ALNUM, 86)}"\n',
    "password digest": lambda r: f'password_sha256: "{chars(r, HEX, 64)}"\n',
    "colours": lambda r: f".a{{color:#{chars(r, HEX, 6)};background:#{chars(r, HEX, 3)}}}\n",
    "svg": lambda r: f'<path d="M{r.randint(1, 99)}.5 2.12 3.{r.randint(10, 99)}.98.32 2.03.5-1.{r.randint(10, 99)}z"/>\n',
    "hexdump": lambda r: f"00000010: {' '.join(chars(r, HEX, 4) for _ in range(8))}  ................\n",
    "wasm words": lambda r: f"const words = [{', '.join('0x' + chars(r, HEX, 8) for _ in range(6))}];\n",
    "publishable": lambda r: f"const stripe = Stripe('pk_{'test'}_{chars(r, ALNUM, 24)}');\n",
}
NAMES: dict[str, Negative] = {
    "environment": lambda r: r.choice(
        (
            "password = os.environ['DB_PASSWORD']\n",
            "const apiKey = process.env.API_KEY_V2;\n",
            "token: ${{ secrets.GITHUB_TOKEN }}\n",
            'secret = ENV.fetch("APP_SECRET_1")\n',
            "DB_PASSWORD=${DB_PASSWORD:-}\n",
            "password: {{ vault_db_password }}\n",
        )
    ),
    "call": lambda r: r.choice(
        (
            "password = getpass.getpass('Password: ')\n",
            "token = jwt.encode(payload, key)\n",
            'String token = request.getHeader("X-Token");\n',
            "$password = password_hash($p1, PASSWORD_BCRYPT);\n",
            "secret := generateSecret(32)\n",
            "let token = parser.next_token2();\n",
        )
    ),
    "placeholder": lambda r: r.choice(
        (
            "password = 'changeme'\n",
            "API_KEY=your_api_key_here\n",
            'token: "<your-token>"\n',
            "secret = 'xxxxxxxxxxxxxxxx'\n",
            "PASSWORD=\n",
            "api_key = 'INSERT_API_KEY_HERE_123'\n",
            'password: "********"\n',
            "password=password\n",
            "AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE\n",
        )
    ),
    "label": lambda r: r.choice(
        (
            '{"password": "Passwort", "login": "Anmelden"}\n',
            "password: 'Enter your password',\n",
            '<label for="password">Password</label>\n',
            "'auth.password' => 'The provided password is incorrect.',\n",
            'placeholder="Password"\n',
            "t('password.reset')\n",
        )
    ),
    "form": lambda r: r.choice(
        (
            '<input type="password" name="password" id="inputPassword3">\n',
            '<input name="token" value="{{ csrf_token }}">\n',
            'autocomplete="current-password"\n',
            "{ type: 'password', field: 'userPassword2' }\n",
        )
    ),
    "type": lambda r: r.choice(
        (
            "def login(user: str, password: Optional[str] = None):\n",
            "  password: string;\n",
            "password VARCHAR(255) NOT NULL,\n",
            "  apiKey?: string | undefined;\n",
            "token: Token2,\n",
            "    pub secret_key: SecretKey32,\n",
            "char password[64];\n",
        )
    ),
    "other thing": lambda r: r.choice(
        (
            "max_tokens = 4096\n",
            "token_type: bearer2\n",
            "secretName: tls-secret-2\n",
            "password_file=/run/secrets/db2\n",
            "token_url: /oauth2/v1\n",
            'secret_arn = "arn:aws:secretsmanager:eu-west-1:123:secret:x"\n',
            "tokenizer = 'bert-base-uncased-v2'\n",
            "min_password_length: 12345\n",
            'api_key_header = "X-Api-Key-V2-Internal"\n',
            'private_key_path = "certs/server2.pem"\n',
            "primary_key: customer_id_2\n",
        )
    ),
    "kubernetes": lambda r: f"  secretKeyRef:\n    name: db-{r.randint(1, 9)}\n    key: postgres-password\n",
    "keys of maps": lambda r: f"<Row key=\"item-{r.randint(100, 999)}\" cacheKey='users:{r.randint(1, 99)}:list' />\n",
    "key event": lambda r: f"if (event.key === 'ArrowLeft{r.randint(1, 9)}') return;\n",
    "test words": lambda r: r.choice(
        (
            "login(user='test', password='test')\n",
            'assert token == "string"\n',
            "secret: 'secret'\n",
            'password="password1"\n',
            "token = 'foo'\n",
        )
    ),
    "regular expression": lambda r: r.choice(
        (
            "GITHUB = re.compile(r'ghp_[A-Za-z0-9]{36}')\n",
            "pattern: 'AKIA[0-9A-Z]{16}'\n",
            "/xox[baprs]-[0-9]{12}/\n",
            "EMAIL = r'[\\w.]+@[\\w.]+'\n",
        )
    ),
    "shortened": lambda r: r.choice(
        ("export OPENAI_API_KEY=sk-...\n", "token starts with `ghp_`.\n", "Authorization: Bearer <token>\n", "key: AIza***\n")
    ),
    "prose": lambda r: r.choice(
        (
            "The password must have 8 to 16 characters.\n",
            "Invalid token: expected ';', found 'x2y3'\n",
            "pass `index=True` to keep it\n",
            "The secret: Thompson2 said so.\n",
            "first pass:1234567 rows\n",
            "basic authentication2024 is off; use bearer authentication\n",
        )
    ),
    "token of no digits": lambda r: r.choice(
        (
            f"xoxb-my-{chars(r, LOWER, 6)}-bot-token\n",
            f"xoxe.xoxp-1-{chars(r, LOWER, 12)}\n",
            f"glc_{r.choice(HEX) * 40}=\n",
            "see xoxa-nyc.org/blob\n",
        )
    ),
    "register": lambda r: f"0, &hf_serving{chars(r, LOWER, 2)}priorityparametersdescription, H_PRIO\n",
    "artifact": lambda r: f'"Maven: io.jsonwebtoken:jjwt-jackson-0.11.{r.randint(1, 9)}"\n',
    "authenticity": lambda r: f'<input name="authenticity_token" value="{chars(r, ALNUM, 86)}">\n',
    "type of a resource": lambda r: (
        f'    "AWS::IAM::AccessKey": "{chars(r, HEX, 16)}",\n    "AWS::SecretsManager::Secret": "{chars(r, HEX, 16)}",\n'
    ),
    "resource": lambda r: f'"arn:aws:secretsmanager:us-west-2:1234{r.randint(10**7, 10**8)}:secret:MyTestDatabase-{chars(r, HEX, 6)}"\n',
    "markup": lambda r: f"implementing a client, pass :data:`h{r.randint(10, 99)}.CLIENT`. If\n",
    "ternary": lambda r: f"this.depthPass=t?this.material{r.randint(1, 9)}.depthPass:this.stencilGlobal,this.backPass=t?a.b:c.d2,\n",
    "member": lambda r: f"X25519PrivateKey = rust_openssl.x{r.randint(100, 999)}.X25519PrivateKey\n",
    "date": lambda r: f'"PasswordLastUsed": "20{r.randint(10, 24)}-09-08T21:47:36Z", "password_date": "20{r.randint(10, 24)}-09-08"\n',
    "example": lambda r: f'"client_secret": "idpexamplesecret{r.randint(100, 999)}"\n',
    "bytes in a loop": lambda r: f"token_ids = [{', '.join(str(r.randint(0, 50000)) for _ in range(9))}]\n",
    "vendored name": lambda r: "__all__ = ['HTTPPasswordMgr', 'HTTPPasswordMgrWithDefaultRealm2']\n",
    "pointer": lambda r: "int set_ids(SRP_user_pwd *user_pwd2, const char *id);\n",
    "credential class": lambda r: "credentials = service_account.Credentials2\nusing var key = Registry2.OpenSubKey;\n",
}
ADDRESSES: dict[str, Negative] = {
    "decorator": lambda r: r.choice(
        ("@app.route('/x')\n", "@pytest.mark.slow\n", "x@property.setter\n", "@Override\n", "@Component.Builder\n")
    ),
    "retina": lambda r: f"background: url(img/icon-{r.randint(1, 99)}@2x.png);\n",
    "remote": lambda r: r.choice(
        ("git@github.com:acme/app.git\n", "git clone git@gitlab.com:acme/lib\n", "scp x deploy@web1.acme.io:/srv/app\n")
    ),
    "prompt": lambda r: f"root@web{r.randint(1, 9)}:~# ls\nada@build-{r.randint(1, 9)}.acme.io:~$ make\n",
    "pin": lambda r: f"npm install lodash@4.17.{r.randint(1, 30)} @types/node@18.{r.randint(0, 9)}.1\n",
    "matrix": lambda r: "y = (A@B.T) @ w.T + b@c.shape\n",
    "example mail": lambda r: r.choice(
        ("ada@example.com\n", "To: user@example.org\n", "you@yourdomain.com\n", "a@b.test\n", "root@localhost\n")
    ),
    "product": lambda r: r.choice(
        (
            f"return self.q{r.randint(1, 9)}@self.k.mT\n",
            f"{r.choice(LOWER)} = q@k.mH\n",
            f"x{r.randint(1, 9)} = w@self.fc.to(d)\ny = w@self.fc.to\n",
            f"z = a@b.me + {r.randint(1, 9)}\n",
            f"h = f({r.choice(LOWER)}@layer{r.randint(1, 9)}.in, 2)\n",
            f"return {r.choice(LOWER)}@k.to\n",
        )
    ),
    "label of Kotlin": lambda r: r.choice(
        ("val m = this@LoginFragment.email\n", "bind(this@MainActivity.app)\n", "super@Base.info\n", "return@forEach.to\n")
    ),
    "mention": lambda r: "thanks @octocat and @ada.lovelace!\n",
    "objective-c": lambda r: '@interface View : NSObject\n@property (nonatomic) id x@end\nNSLog(@"%@.com", x);\n',
    "css": lambda r: "@media screen{a{b:c}}@import url(x.css);@font-face{}\n",
    "url with at": lambda r: (
        f"https://unpkg.com/react@{r.randint(16, 18)}.2.0/umd/react.js https://medium.com/@ada/x-{chars(r, HEX, 12)}\n"
    ),
    "private": lambda r: (
        f"bind 10.{r.randint(0, 255)}.{r.randint(0, 255)}.7\nhost 192.168.{r.randint(0, 255)}.20 172.16.{r.randint(0, 255)}.1\n"
    ),
    "loopback": lambda r: f"http://127.0.0.1:{r.randint(1000, 9999)}/ 0.0.0.0 255.255.255.0 169.254.169.254 224.0.0.251\n",
    "documentation": lambda r: (
        f"e.g. 192.0.2.{r.randint(1, 254)}, 198.51.100.7, 203.0.113.{r.randint(1, 254)} and 2001:db8::{r.randint(1, 99)}\n"
    ),
    "resolver": lambda r: "nameserver 8.8.8.8\nnameserver 1.1.1.1\nnameserver 2001:4860:4860::8888\n",
    "version": lambda r: r.choice(
        (
            f"version = '{_version(r)}'\n",
            f"Chrome/{_version(r)} Safari\n",
            f"openssl=={_version(r)}\n",
            f'[assembly: AssemblyVersion("{_version(r)}")]\n',
            f"update V8 to {_version(r)}\n",
            f"lib-{_version(r)}.jar\n",
            f"v{_version(r)}\n",
            f"Section {r.randint(2, 30)}.3.4.2 says\n",
        )
    ),
    "upgrade": lambda r: r.choice(
        (
            f"Bump grpc from {_version(r)} to {_version(r)}\n",
            f"Bumps [boost](https://boost.org) from 1.{r.randint(40, 80)}.0.125 to 1.81.0.{r.randint(101, 200)}.\n",
            f"node {_version(r)}\n",
            f"image: nginx:1.{r.randint(19, 27)}.3.{r.randint(101, 200)}\n",
            f'"{r.randint(1, 9)}.{r.randint(100, 250)}.2.3"\n',
            f"IPython 8.{r.randint(1, 30)}.1.3\n",
            f"npm i foo@12.{r.randint(1, 30)}.2.3\n",
        )
    ),
    "oid": lambda r: f"1.3.6.1.4.1.{r.randint(1, 9999)} 2.5.29.{r.randint(1, 60)} 2.5.4.{r.randint(3, 60)}\n",
    "section": lambda r: f"# specs sections 8.2.4.{r.randint(33, 66)} Bogus comment and 8.2.4.{r.randint(33, 66)} Markup\n",
    "clause": lambda r: f"// {r.randint(20, 30)}.3.4.{r.randint(2, 9)} modifiers:\n",
    "times": lambda r: f"at 12:{r.randint(10, 59)}:07, 2020:10:{r.randint(10, 28)} 23:59:59, 00:1b:44:11:3a:{chars(r, HEX, 2)}\n",
    "scope": lambda r: "std::cafe::beef ff::a; 2019::x; Foo::Bar\n",
    "no login": lambda r: r.choice(
        ("postgres://localhost:5432/app\n", "https://ada@acme.io/x\n", "redis://:@cache:6379/0\n", "http://user:pass@host/\n")
    ),
    "link placeholder": lambda r: r.choice(
        ("mysql://root:${PW}@db/x\n", "ftp://user:<password>@h.io\n", "amqp://guest:{{pw}}@mq\n", "a://b:%s@c\n")
    ),
}
NEGATIVES: dict[str, Negative] = {**LOCKS, **BLOBS, **NAMES, **ADDRESSES}
