/**
 * Decodes server-sent events (HTML, 9.2.6), however the bytes are cut. Pure.
 *
 * Invariant: the last id stands, also of a frame without data, until another comes.
 */

export interface Frame {
  /** Empty where the frame only says where to go on from. */
  data: string;
}

export class SseDecoder {
  /** The id to go on from; undefined: none was told. */
  lastId: string | undefined;
  /** How long to wait before connecting again, as the server says. */
  retryMs: number | undefined;

  private readonly decoder = new TextDecoder();
  private rest = '';
  private data: string[] = [];
  private id: string | undefined;

  /** Take bytes in; give the frames that are whole now. */
  push(bytes: Uint8Array): Frame[] {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const frames: Frame[] = [];
    let start = 0;
    for (;;) {
      const end = lineEnd(this.rest, start);
      if (end === undefined) break;
      this.line(this.rest.slice(start, end.at), frames);
      start = end.next;
    }
    this.rest = this.rest.slice(start);
    return frames;
  }

  private line(line: string, frames: Frame[]): void {
    if (line === '') {
      if (this.id !== undefined) this.lastId = this.id;
      if (this.data.length > 0 || this.id !== undefined) frames.push({ data: this.data.join('\n') });
      this.data = [];
      this.id = undefined;
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    if (field === 'data') this.data.push(value);
    else if (field === 'id' && !value.includes('\0')) this.id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}

// A CR at the very end may have its LF in the next bytes.
function lineEnd(text: string, from: number): { at: number; next: number } | undefined {
  for (let at = from; at < text.length; at++) {
    if (text[at] === '\n') return { at, next: at + 1 };
    if (text[at] === '\r') {
      if (at + 1 === text.length) return undefined;
      return { at, next: text[at + 1] === '\n' ? at + 2 : at + 1 };
    }
  }
  return undefined;
}
