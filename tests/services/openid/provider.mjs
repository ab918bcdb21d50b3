// A real OpenID provider with the addresses of Cognito's hosted login. Every account that was put may log in with its
// name alone. Started by tests/services/openid_provider.py; says its port in one line and runs until its input ends.
import { createSign, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import Provider, { interactionPolicy } from 'oidc-provider';

const { issuer, pool, client_id, client_secret } = JSON.parse(process.argv[2]);
const CLAIMS = ['token_use', 'email', 'email_verified', 'name', 'custom:orgId', 'custom:appId', 'custom:userRole'];
const accounts = new Map();
const signing = { own: generateKeyPairSync('rsa', { modulusLength: 2048 }), foreign: generateKeyPairSync('rsa', { modulusLength: 2048 }) };
const KID = 'provider-key';

const policy = interactionPolicy.base();
policy.get('consent').checks.remove('native_client_prompt'); // as Cognito, which asks nobody for consent

const provider = new Provider(issuer, {
  clients: [{
    client_id,
    client_secret,
    application_type: 'native', // whose loopback addresses may have any port
    redirect_uris: ['http://127.0.0.1/oauth2/idpresponse'],
    token_endpoint_auth_method: 'client_secret_post',
    id_token_signed_response_alg: 'RS256',
  }],
  jwks: { keys: [{ ...signing.own.privateKey.export({ format: 'jwk' }), kid: KID, use: 'sig', alg: 'RS256' }] },
  pkce: { required: () => true },
  claims: { openid: ['sub', ...CLAIMS], email: [], profile: [] },
  conformIdTokenClaims: false,
  cookies: { keys: ['of-the-tests'] },
  features: { devInteractions: { enabled: false }, rpInitiatedLogout: { enabled: false } },
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (ctx, id) => accounts.has(id) && {
    accountId: id,
    claims: () => ({ sub: id, token_use: 'id', ...accounts.get(id).claims }),
  },
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope('openid email profile');
    grant.addOIDCClaims(CLAIMS);
    await grant.save();
    return grant;
  },
  routes: {
    authorization: '/oauth2/authorize',
    token: '/oauth2/token',
    userinfo: '/oauth2/userInfo',
    jwks: `/${pool}/.well-known/jwks.json`,
  },
});

// What an honest provider never does: the ID token of an account whose `forged` says so is written and signed anew.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path !== '/oauth2/token' || !ctx.body?.id_token) return;
  const [header, payload] = ctx.body.id_token.split('.').slice(0, 2).map(decode);
  const forged = accounts.get(payload.sub)?.forged;
  if (!forged) return;
  const said = { ...payload, ...forged.claims };
  for (const [name, value] of Object.entries(said)) if (value === null) delete said[name];
  const text = [{ ...header, ...forged.header }, said].map(encode).join('.');
  const key = signing[forged.key ?? 'own'].privateKey;
  ctx.body.id_token = `${text}.${createSign('RSA-SHA256').update(text).sign(key, 'base64url')}`;
});

const decode = (part) => JSON.parse(Buffer.from(part, 'base64url'));
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

async function read(request) {
  let text = '';
  for await (const piece of request) text += piece;
  return text;
}

function form(response) {
  response.setHeader('content-type', 'text/html');
  response.end('<!DOCTYPE html><title>Provider</title><link rel="icon" href="data:,"><form method="post">'
    + '<input name="login"><button>Log in at the provider</button></form>');
}

const withProvider = provider.callback();

const server = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1');
  if (url.pathname.startsWith('/accounts/')) {
    accounts.set(decodeURIComponent(url.pathname.slice('/accounts/'.length)), JSON.parse(await read(request)));
    response.end();
  } else if (url.pathname.startsWith('/interaction/') && request.method === 'GET') {
    form(response);
  } else if (url.pathname.startsWith('/interaction/')) {
    const accountId = new URLSearchParams(await read(request)).get('login');
    const result = accounts.has(accountId)
      ? { login: { accountId }, consent: {} }
      : { error: 'access_denied', error_description: 'No such account.' };
    await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  } else if (url.pathname === '/logout' && url.searchParams.get('client_id') === client_id) {
    const ended = ['_session', '_session.sig'].map((name) => `${name}=; path=/; max-age=0`);
    response.writeHead(302, { location: url.searchParams.get('logout_uri'), 'set-cookie': ended }).end();
  } else {
    await withProvider(request, response);
  }
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit()).resume();
