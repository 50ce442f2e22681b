/**
 * What waits to be sent: in order, and bounded in items and in memory.
 *
 * Invariant: an item that was taken for sending is never changed; before that, what comes to be
 * known of it goes into it. Does no I/O.
 */

/** One item of a batch: its fields as JSON, so that nothing the application does later changes it. */
export class Item {
  /** Whether it was taken for sending. */
  taken = false;
  /** Whether it was given up. */
  lost = false;

  constructor(
    readonly type: 'trace' | 'span' | 'complete' | 'fail' | 'end',
    readonly fields: Map<string, string>,
    /** Whether it brings again what was counted as lost. */
    readonly isAgain = false,
  ) {}

  /** Memory in bytes: engines hold a character in one or two, and each field in some more. */
  get bytes(): number {
    let bytes = 200;
    for (const text of this.fields.values()) bytes += 100 + 2 * text.length;
    return bytes;
  }

  /** Write it as JSON. */
  text(): string {
    let text = `{"type":"${this.type}"`;
    for (const [name, value] of this.fields) text += `,"${name}":${value}`;
    return `${text}}`;
  }
}

/** Items that are sent together, and their JSON. */
export interface Batch {
  items: Item[];
  body: string;
}

export interface Bounds {
  /** The most items that wait. */
  maxItems: number;
  /** The most bytes of memory that they take. */
  maxBytes: number;
}

// As the server takes them.
const BATCH_ITEMS = 1000;
// The server takes 8 MiB by default; a smaller batch is a shorter wait for all others.
const BATCH_BYTES = 1 << 20;

export class Queue {
  private items: Item[] = [];
  private bytes = 0;

  constructor(private readonly bounds: Bounds) {}

  get length(): number {
    return this.items.length;
  }

  /** Whether there is enough for a batch that is worth a request at once. */
  get isFull(): boolean {
    return this.items.length >= BATCH_ITEMS / 2 || this.bytes >= BATCH_BYTES;
  }

  /** Take an item in; say whether there was room. */
  add(item: Item): boolean {
    const bytes = item.bytes;
    if (this.items.length + 1 > this.bounds.maxItems || this.bytes + bytes > this.bounds.maxBytes) {
      return false;
    }
    this.bytes += bytes;
    this.items.push(item);
    return true;
  }

  /**
   * Add fields to an item that waits; say whether there was room for all of them.
   *
   * That it ended always has room, or it would run for ever; what it gave may have none.
   */
  extend(item: Item, fields: Map<string, string>): boolean {
    this.bytes -= item.bytes;
    let hasRoom = true;
    for (const [name, text] of fields) {
      const free = this.bounds.maxBytes - this.bytes - item.bytes;
      if (text.length > 256 && 2 * text.length + 100 > free) hasRoom = false;
      else item.fields.set(name, text);
    }
    this.bytes += item.bytes;
    return hasRoom;
  }

  /** Take out the next batch: at least one item, and no more than `maxBytes` of JSON beyond it. */
  take(maxBytes = BATCH_BYTES): Batch {
    const texts: string[] = [];
    let bytes = 0;
    while (texts.length < Math.min(this.items.length, BATCH_ITEMS)) {
      const text = (this.items[texts.length] as Item).text();
      bytes += utf8Length(text) + 1;
      if (texts.length > 0 && bytes > maxBytes) break;
      texts.push(text);
    }
    const items = this.items.splice(0, texts.length);
    for (const item of items) {
      item.taken = true;
      this.bytes -= item.bytes;
    }
    return { items, body: bodyOf(texts) };
  }

  /** Put a batch back to where it came from. */
  putBack(items: Item[]): void {
    this.items.unshift(...items);
    for (const item of items) this.bytes += item.bytes;
  }

  /** Take out all that waits. */
  clear(): Item[] {
    this.bytes = 0;
    return this.items.splice(0);
  }
}

/** Write a batch of items that were taken out before. */
export function batchOf(items: Item[]): Batch {
  return { items, body: bodyOf(items.map((item) => item.text())) };
}

function bodyOf(texts: string[]): string {
  return `{"items":[${texts.join(',')}]}`;
}

function utf8Length(text: string): number {
  const { Buffer } = globalThis as { Buffer?: { byteLength?(text: string): number } };
  if (Buffer?.byteLength) return Buffer.byteLength(text);
  let bytes = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    // A pair of surrogates is four bytes, two for each.
    if (unit >= 0x80) bytes += unit < 0x800 || (unit >= 0xd800 && unit <= 0xdfff) ? 1 : 2;
  }
  return bytes;
}
