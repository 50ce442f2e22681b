/** A real Traceway server, as its own process on a port of its own. */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const PYTHON = join(ROOT, '.venv/bin/python');

/** Why there can be none; undefined: there can. */
export const missing = existsSync(PYTHON) ? undefined : 'there is no .venv with the server';

export class TracewayServer {
  folder = mkdtempSync(join(tmpdir(), 'traceway-sdk-'));
  port = 0;
  log = '';

  static async start(...options) {
    const server = new TracewayServer();
    server.options = options;
    await server.resume();
    return server;
  }

  /** Start one whose configuration lets pages of an origin in. */
  static async open(origin) {
    const server = new TracewayServer();
    server.options = ['--config', server.config];
    writeFileSync(server.config, `[server]\nallowed_origins = ["${origin}"]\n`);
    await server.resume();
    return server;
  }

  get config() {
    return join(this.folder, 'config.toml');
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Serve the database, on the port that it had before. */
  async resume() {
    const options = ['--db', join(this.folder, 'traceway.db'), '--port', String(this.port), ...this.options];
    this.child = spawn(PYTHON, ['-m', 'proxy', 'serve', ...options], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => this.child.on('close', resolve));
    await new Promise((resolve, reject) => {
      const told = (data) => {
        this.log += data;
        const port = /base URL +http:\/\/127\.0\.0\.1:(\d+)/.exec(this.log)?.[1];
        if (port) {
          this.port = Number(port);
          resolve();
        }
      };
      this.child.stdout.on('data', told);
      this.child.stderr.on('data', told);
      this.ended.then(() => reject(new Error(`the server ended: ${this.log}`)));
    });
    this.log = '';
  }

  async pause() {
    this.child.kill('SIGTERM');
    await this.ended;
  }

  async stop() {
    await this.pause();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Make a key; with the first one, every request needs one. */
  async key(scope, admin) {
    const response = await fetch(`${this.url}/api/keys`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(admin ? { Authorization: `Bearer ${admin}` } : {}) },
      body: JSON.stringify({ name: scope, scope }),
    });
    return (await response.json()).key;
  }
}
