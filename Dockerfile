# The plain server: an image that holds thousands of streams. AWS Lambda is packaged by Zappa instead.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY requirements.txt requirements-server.txt /build/
RUN pip install --require-hashes -r /build/requirements.txt -r /build/requirements-server.txt
WORKDIR /app
COPY manage.py LICENSE ./
COPY apps apps
COPY controlplane controlplane
COPY static static
COPY templates templates
# No secret is needed to gather files; these would be refused by a server.
RUN ENVIRONMENT=production SECRET_KEY=unused-at-build DATA_DIR=/tmp/build \
    python manage.py collectstatic --noinput --verbosity 0 \
    && python -m compileall -q apps controlplane

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin controlplane \
    && install --directory --owner controlplane --mode 0700 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production HOST=0.0.0.0 PORT=8000 DATA_DIR=/data DEMO_FILE=/data/demo.json
WORKDIR /app
USER controlplane
VOLUME /data
EXPOSE 8000
# The server answers only to its own names, so the check calls it by the first of them.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
name = os.environ.get('ALLOWED_HOSTS', '').split(',')[0].strip('.* ') or 'localhost'; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=3); \
server.request('GET', '/health', headers={'Host': name}); \
sys.exit(server.getresponse().status != 200)"]
CMD ["python", "manage.py", "serve"]
