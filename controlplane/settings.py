"""Django settings, all from the environment. The README's table lists every variable; a test holds it to this file."""

from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from apps.orgs.cognito import login_base, region_of
from controlplane import secrets
from controlplane.mail import mail_server

BASE_DIR = Path(__file__).resolve().parent.parent
env = secrets.Environment()

# --- Which home

ENVIRONMENT: str = env.str("ENVIRONMENT", default="development")
PRODUCTION = ENVIRONMENT != "development"
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data")))
DEBUG = False

# --- Secrets: from the environment; a developer's machine makes its own and keeps them in DATA_DIR

_development_secrets = {} if PRODUCTION else secrets.development_secrets(DATA_DIR)
SECRET_KEY: str = env.str("SECRET_KEY", default=_development_secrets.get("SECRET_KEY", ""))
KEY_PEPPERS: dict[str, bytes] = secrets.parse_key_ring(
    env.str("KEY_PEPPERS", default=_development_secrets.get("KEY_PEPPERS", "")), "KEY_PEPPERS"
)
ENCRYPTION_KEYS: dict[str, bytes] = secrets.parse_key_ring(
    env.str("ENCRYPTION_KEYS", default=_development_secrets.get("ENCRYPTION_KEYS", "")), "ENCRYPTION_KEYS"
)
KMS_KEY_ID: str = env.str("KMS_KEY_ID", default="")
DATA_KEY_SECONDS: float = env.float("DATA_KEY_SECONDS", default=300.0)
METRICS_TOKEN: str = env.str("METRICS_TOKEN", default="")

# --- Applications

INSTALLED_APPS = [
    "apps.orgs",
    "apps.policies",
    "apps.audit",
    "apps.gateway",
    "apps.alerts",
    "controlplane",
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "controlplane.admin_site.ControlPlaneAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "csp",
]
MIDDLEWARE = [
    "controlplane.request_ids.RequestIdMiddleware",
    "controlplane.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "controlplane.browsers.PagePolicyMiddleware",
    "controlplane.browsers.CrossOriginMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apps.orgs.fencing.FenceMiddleware",
    "apps.orgs.sessions.SessionEndMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "orgs.User"
AUTHENTICATION_BACKENDS = ["apps.orgs.auth_backend.MembershipBackend", "apps.orgs.oidc.ProviderBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = ["controlplane.formats"]
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles" if PRODUCTION else None
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not PRODUCTION

# --- Database: PostgreSQL, or SQLite in one file

DATABASE_URL: str = secrets.database_url(env.str("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'db.sqlite3'}"))
_database: dict[str, Any] = dict(environ.Env.db_url_config(DATABASE_URL))
if _database["ENGINE"] == "django.db.backends.sqlite3":
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
    }
else:
    _database.setdefault("OPTIONS", {})
    _database["OPTIONS"].setdefault("connect_timeout", 2)
    _database["CONN_MAX_AGE"] = 60
    _database["CONN_HEALTH_CHECKS"] = True
    _database["DISABLE_SERVER_SIDE_CURSORS"] = False
    _database["ENGINE"] = "apps.audit.postgresql"
DATABASES = {"default": _database}
# As whom else the one database is spoken to (`apps.audit.fence`). Unset: as DATABASE_URL says.
WORKER_DATABASE_URL: str = env.str("WORKER_DATABASE_URL", default="")
MIGRATION_DATABASE_URL: str = env.str("MIGRATION_DATABASE_URL", default="")
WORKER_DATABASE: dict[str, Any] | None = (
    dict(environ.Env.db_url_config(WORKER_DATABASE_URL)) if WORKER_DATABASE_URL else None
)
MIGRATION_DATABASE: dict[str, Any] | None = (
    dict(environ.Env.db_url_config(MIGRATION_DATABASE_URL)) if MIGRATION_DATABASE_URL else None
)

# --- Redis: rate limits shared between processes, and Django's cache

REDIS_URL: str = secrets.redis_url(env.str("REDIS_URL", default=""))
RATES_WHEN_REDIS_FAILS: str = env.str("RATES_WHEN_REDIS_FAILS", default="local")
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "local"},
}
HOST: str = env.str("HOST", default="127.0.0.1")
PORT: int = env.int("PORT", default=8000)
WORKERS: int = env.int("WORKERS", default=1)
PAGE_THREADS: int = env.int("PAGE_THREADS", default=8)
DEMO_FILE: str = env.str("DEMO_FILE", default=str(BASE_DIR / ".demo.json"))

# --- Celery

CELERY_BROKER_URL: str = env.str("CELERY_BROKER_URL", default=REDIS_URL or "memory://")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "apps.gateway.tasks.sweep", "schedule": 30.0},
    "roll-usage": {"task": "apps.gateway.tasks.roll_usage", "schedule": 15.0},
    "tell": {"task": "apps.alerts.tasks.tell", "schedule": 15.0},
    "ensure-partitions": {"task": "apps.audit.tasks.ensure_partitions", "schedule": 86_400.0},
    # While a worker is at a long export, its next calls are of no use.
    "exports": {"task": "apps.gateway.tasks.export", "schedule": 5.0, "options": {"expires": 5.0}},
    "tidy-exports": {"task": "apps.gateway.tasks.tidy_exports", "schedule": 300.0},
}

# --- Exports: their files lie in a folder below DATA_DIR, or in the bucket

S3_BUCKET_NAME: str = env.str("S3_BUCKET_NAME", default="")
EXPORT_SECONDS: int = env.int("EXPORT_SECONDS", default=259_200)
EXPORT_CHECK_SECONDS: float = env.float("EXPORT_CHECK_SECONDS", default=1.0)

# --- The identity provider: a user pool of Cognito's. `apps.orgs.cognito` makes its addresses of these

COGNITO_USER_POOL_ID: str = env.str("COGNITO_USER_POOL_ID", default="")
COGNITO_CLIENT_ID: str = env.str("COGNITO_CLIENT_ID", default="")
COGNITO_CLIENT_SECRET: str = env.str("COGNITO_CLIENT_SECRET", default="")
COGNITO_DOMAIN: str = env.str("COGNITO_DOMAIN", default="")
COGNITO_REDIRECT_URI: str = env.str("COGNITO_REDIRECT_URI", default="")
AWS_ENDPOINT_URL: str = env.str("AWS_ENDPOINT_URL", default="")

# --- Web security

ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"])
FRONT_END_URL: str = env.str("FRONT_END_URL", default="")
CSRF_TRUSTED_ORIGINS: list[str] = [FRONT_END_URL] if FRONT_END_URL else []
PASSWORD_LOGIN: bool = env.bool("PASSWORD_LOGIN", default=not PRODUCTION)
SESSION_COOKIE_SECURE = PRODUCTION
CSRF_COOKIE_SECURE = PRODUCTION
# A browser takes a cookie of such a name only over TLS, for this host alone and for all of its paths.
SESSION_COOKIE_NAME = "__Host-session" if PRODUCTION else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrf" if PRODUCTION else "csrftoken"
CSRF_COOKIE_HTTPONLY = True  # the token is in every form
SESSION_SECONDS: int = env.int("SESSION_SECONDS", default=43_200)
SESSION_IDLE_SECONDS: int = env.int("SESSION_IDLE_SECONDS", default=3600)
SESSION_RENEW_SECONDS: int = env.int("SESSION_RENEW_SECONDS", default=3600)
SESSION_COOKIE_AGE = SESSION_SECONDS
SECURE_SSL_REDIRECT: bool = env.bool("SECURE_SSL_REDIRECT", default=PRODUCTION)
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", default=False) else None
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
X_FRAME_OPTIONS = "DENY"
APPEND_SLASH = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
ERROR_PAGE_STYLE = "sha256-6HXxsPJQM8tzraovIWBooMPBhxXq2q9yp+KAMhwNsuM="
"""The digest of the one style that stands in a page: templates/error.html must show whatever else has failed."""
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],  # the admin's pages allow themselves eval: `controlplane.browsers`
        "style-src": ["'self'", f"'{ERROR_PAGE_STYLE}'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "frame-src": ["'none'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'self'"],
        # Browsers hold a form to where its answer leads: logging out ends at the identity provider.
        "form-action": ["'self'", *filter(None, [login_base(COGNITO_DOMAIN, region_of(COGNITO_USER_POOL_ID))])],
    }
}

# --- The request's path: limits on what comes in and how long anything may take (bytes, seconds)

MAX_BODY_BYTES: int = env.int("MAX_BODY_BYTES", default=10 * 1024 * 1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
BODY_DEADLINE_SECONDS: float = env.float("BODY_DEADLINE_SECONDS", default=30.0)
REQUEST_DEADLINE_SECONDS: float = env.float("REQUEST_DEADLINE_SECONDS", default=600.0)
PROVIDER_CONNECT_SECONDS: float = env.float("PROVIDER_CONNECT_SECONDS", default=5.0)
PROVIDER_FIRST_BYTE_SECONDS: float = env.float("PROVIDER_FIRST_BYTE_SECONDS", default=120.0)
PROVIDER_IDLE_SECONDS: float = env.float("PROVIDER_IDLE_SECONDS", default=60.0)
PROVIDER_CONNECTIONS: int = env.int("PROVIDER_CONNECTIONS", default=1000)
PROVIDER_REPLY_BYTES: int = env.int("PROVIDER_REPLY_BYTES", default=32 * 1024 * 1024)
PROVIDER_ALLOWED_NETWORKS: list[str] = env.list(
    "PROVIDER_ALLOWED_NETWORKS", default=[] if PRODUCTION else ["127.0.0.0/8", "::1/128"]
)

# --- Overload, in each process: what is beyond it is sent away at once

MAX_IN_FLIGHT: int = env.int("MAX_IN_FLIGHT", default=64)
MAX_HELD: int = env.int("MAX_HELD", default=10_000)
MAX_JOURNAL_QUEUE_AGE_SECONDS: float = env.float("MAX_JOURNAL_QUEUE_AGE_SECONDS", default=0.5)

# --- The journal

JOURNAL_WAIT_SECONDS: float = env.float("JOURNAL_WAIT_SECONDS", default=1.5)
SPOOL_DIR = Path(env.str("SPOOL_DIR", default=str(DATA_DIR / "spool")))
SWEEP_SECONDS: float = env.float("SWEEP_SECONDS", default=10.0)
ROLLUP_SECONDS: float = env.float("ROLLUP_SECONDS", default=15.0)

# --- Alerts: how often they are looked for and sent, and the mail server

ALERT_SECONDS: float = env.float("ALERT_SECONDS", default=5.0)
EMAIL_URL: str = env.str("EMAIL_URL", default="")
DEFAULT_FROM_EMAIL: str = env.str("EMAIL_FROM", default="llm-control-plane@localhost")
EMAIL_TIMEOUT = 5
_mail = mail_server(EMAIL_URL)
EMAIL_HOST, EMAIL_PORT = _mail.host, _mail.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail.user, _mail.password
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail.starttls, _mail.tls

# --- Providers of the operator's own environment

OPENAI_BASE_URL: str = env.str("OPENAI_BASE_URL", default="https://api.openai.com/v1")
OPENAI_API_KEY: str = env.str("OPENAI_API_KEY", default="")
SIMULATED_PROVIDER: bool = env.bool("SIMULATED_PROVIDER", default=not PRODUCTION)

# --- REST framework and OpenAPI

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.orgs.rest.bodies.StrictJsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "apps.orgs.rest.bodies.JsonOnly",
    "EXCEPTION_HANDLER": "apps.orgs.rest.errors.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": None,
    "DATETIME_FORMAT": "iso-8601",
    "COERCE_DECIMAL_TO_STRING": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "LLM Control Plane",
    "VERSION": "0.1.0",
    "DESCRIPTION": "OpenAI-compatible inference under an organization's policies, and the API that manages them.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVERS": [{"url": "/"}],
    "ENUM_NAME_OVERRIDES": {
        "AlertKindEnum": "apps.audit.models.Alert.Kind",
        "ExportKindEnum": "apps.audit.models.Export.Kind",
        "PolicyKindEnum": "apps.policies.models.KIND_CHOICES",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "apps.orgs.rest.openapi.complete",
    ],
}

# --- Logs: one JSON line each on standard error, never a body, a header or a credential

LOG_LEVEL: str = env.str("LOG_LEVEL", default="INFO").upper()
if LOG_LEVEL not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "controlplane.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
    },
}

# --- The admin's looks

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "LLM Control Plane",
    "SITE_HEADER": "LLM Control Plane",
    "SITE_URL": None,
    "SITE_ICON": "controlplane.admin_site.logo",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "controlplane.admin_site.favicon"}],
    "STYLES": [
        "controlplane.admin_site.theme",
        "controlplane.admin_site.mended",
        "controlplane.admin_site.stylesheet",
    ],
    "BORDER_RADIUS": "6px",
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "COLORS": {
        "primary": {
            "50": "#f0fdfa",
            "100": "#ccfbf1",
            "200": "#99f6e4",
            "300": "#5eead4",
            "400": "#2dd4bf",
            "500": "#14b8a6",
            "600": "#0f766e",
            "700": "#115e59",
            "800": "#134e4a",
            "900": "#123f3c",
            "950": "#042f2e",
        }
    },
    "LOGIN": {"form": "apps.orgs.login_form.LoginForm"},
    "SIDEBAR": {"navigation": "controlplane.admin_site.navigation"},
}
