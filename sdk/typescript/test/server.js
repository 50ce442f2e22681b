/**
 * A scripted server of the write API and of events, on a real socket.
 *
 * It keeps what it takes as the contract says: ids are taken once, first ends win, items are judged
 * one by one. `script` holds answers that it gives before it takes anything again.
 */

import { createServer } from 'node:http';

export class FakeServer {
  traces = new Map();
  spans = new Map();
  ended = new Set();
  /** Every request: method, path, headers, body. */
  requests = [];
  /** Answers to come first: {status, headers, body}, 'close', 'silence', or a function of the request. */
  script = [];
  streams = new Set();
  events = [];
  sockets = new Set();
  /** Gives what else is asked for, by its path. */
  read = () => undefined;
  #waiting = [];

  static async start(port = 0) {
    const fake = new FakeServer();
    fake.http = createServer((request, response) => fake.#take(request, response));
    fake.http.on('connection', (socket) => {
      fake.sockets.add(socket);
      socket.on('close', () => fake.sockets.delete(socket));
    });
    await new Promise((resolve) => fake.http.listen(port, '127.0.0.1', resolve));
    fake.port = fake.http.address().port;
    fake.url = `http://127.0.0.1:${fake.port}`;
    return fake;
  }

  async stop() {
    const closed = new Promise((resolve) => this.http.close(resolve));
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose]() {
    await this.stop();
  }

  get batches() {
    return this.requests.filter((request) => request.path === '/api/batch');
  }

  get items() {
    return this.batches.flatMap((batch) => JSON.parse(batch.body).items);
  }

  span(name) {
    return [...this.spans.values()].find((span) => span.name === name);
  }

  trace(name) {
    return [...this.traces.values()].find((trace) => trace.name === name);
  }

  /** Wait until something holds; it is looked at after each request. */
  async until(holds) {
    for (;;) {
      const found = holds(this);
      if (found) return found;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  emit(event) {
    this.events.push(event);
    for (const stream of this.streams) stream.write(frame(this.events.length, event));
  }

  async #take(request, response) {
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const url = new URL(request.url, 'http://server');
    const taken = {
      method: request.method,
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    };
    this.requests.push(taken);
    const scripted = this.script.shift();
    if (scripted === 'close') request.socket.destroy();
    else if (scripted !== 'silence') {
      const told = typeof scripted === 'function' ? await scripted(taken) : scripted;
      if (told === undefined) this.#answer(taken, request, response);
      else if (told !== 'silence') send(response, told.status ?? 200, told.body ?? {}, told.headers);
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #answer(taken, request, response) {
    const { method, path } = taken;
    const read = this.read(path, method);
    if (read !== undefined && (method === 'GET' || path.startsWith('/api/proxy/'))) return send(response, 200, read);
    if (method === 'GET' && path === '/api/events') return this.#stream(taken, request, response);
    if (method === 'POST' && path === '/api/batch') {
      const results = JSON.parse(taken.body).items.map((item) => this.#item(item));
      const refused = results.filter((result) => result.error && result.status !== 409).length;
      return send(response, 200, { results, accepted: results.length - refused, refused });
    }
    if (method === 'POST') {
      const [, kind, id, verb] = path.match(/^\/api\/(\w+)(?:\/([^/]+)\/(\w+))?$/) ?? [];
      const type = { traces: 'trace', spans: 'span' }[kind];
      if (type) {
        const result = this.#item({ ...JSON.parse(taken.body), type: verb ?? type, ...(id ? { id } : {}) });
        return send(response, result.status, result.error ? { error: result.error } : result.view);
      }
    }
    send(response, 404, { error: { message: `no ${path}`, type: 'invalid_request_error', param: null, code: 'not_found' } });
  }

  #item(item) {
    const { type, id } = item;
    if (item.name === 'refused') return refusal(400, 'bad_parameter', 'name is refused', 'name');
    if (type === 'trace') {
      const created = !this.traces.has(id);
      this.traces.set(id, { ...item, ...this.traces.get(id) });
      const view = { id, session_id: item.session_id ?? null, status: 'running', created };
      return { status: created ? 201 : 200, id, trace_id: id, view };
    }
    if (type === 'span') {
      const created = !this.spans.has(id);
      this.spans.set(id, { status: 'running', ...item, ...this.spans.get(id) });
      if (item.status) this.ended.add(id);
      const view = { id, trace_id: item.trace_id, status: this.spans.get(id).status, created };
      return { status: created ? 201 : 200, id, trace_id: item.trace_id, view };
    }
    if (this.ended.has(id)) return refusal(409, 'already_ended', 'it has ended', null);
    const known = type === 'end' ? this.traces.get(id) : this.spans.get(id);
    if (!known) return { status: 202, id, trace_id: null, view: { id, trace_id: null, status: 'waiting' } };
    this.ended.add(id);
    const status = type === 'fail' ? 'failed' : 'completed';
    Object.assign(known, item, { type: known.type, status });
    const view = type === 'end' ? { id, status } : { id, trace_id: known.trace_id, status };
    return { status: 200, id, trace_id: known.trace_id ?? id, view };
  }

  #stream({ headers, query }, request, response) {
    const from = headers['last-event-id'] ?? query.get('since') ?? this.events.length;
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(`retry: 1\nid: ${from}\n\n`);
    this.events.slice(Number(from)).forEach((event, at) => response.write(frame(Number(from) + at + 1, event)));
    this.streams.add(response);
    response.on('close', () => this.streams.delete(response));
  }
}

function frame(id, event) {
  return `id: ${id}\ndata: ${JSON.stringify(event)}\n\n`;
}

function refusal(status, code, message, param) {
  return { status, error: { code, message, param, type: 'invalid_request_error' } };
}

function send(response, status, body, headers = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  response.end(text);
}
