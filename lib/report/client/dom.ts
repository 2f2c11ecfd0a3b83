/** The few things of a browser that the page's script uses: the compiler is not told of all of them everywhere. */

export interface PageElement {
  id: string;
  className: string;
  textContent: string | null;
  innerHTML: string;
  hidden: boolean;
  open: boolean;
  value: string;
  href: string;
  download: string;
  readonly clientWidth: number;
  readonly isConnected: boolean;
  readonly children: Iterable<PageElement>;
  readonly dataset: Record<string, string | undefined>;
  readonly style: Record<string, string> & { setProperty(name: string, value: string): void };
  append(...children: (PageElement | string)[]): void;
  replaceChildren(...children: (PageElement | string)[]): void;
  remove(): void;
  click(): void;
  /** Of a canvas. */
  getContext?(kind: '2d'): { font: string; measureText(text: string): { readonly width: number } } | null;
  setAttribute(name: string, value: string): void;
  addEventListener(type: string, listener: (event: { target: unknown }) => void): void;
  querySelector(selector: string): PageElement | null;
  querySelectorAll(selector: string): Iterable<PageElement>;
  closest(selector: string): PageElement | null;
}

export interface Page {
  readonly body: PageElement;
  createElement(name: string): PageElement;
  getElementById(id: string): PageElement | null;
  querySelectorAll(selector: string): Iterable<PageElement>;
  title: string;
}

interface Observer {
  observe(element: PageElement): void;
  unobserve(element: PageElement): void;
}

export interface Chart {
  setOption(option: object, replace: boolean): void;
  on(event: 'legendselectchanged', listener: (event: { selected: Record<string, boolean> }) => void): void;
  dispatchAction(action: { type: 'showTip'; x: number; y: number }): void;
  /** What draws: tells where the reader points. */
  getZr(): {
    on(event: 'mousemove' | 'globalout', listener: (event: { offsetX: number; offsetY: number }) => void): void;
  };
  resize(size: { width: number; height: number }): void;
  renderToSVGString(): string;
  dispose(): void;
}

/** `globalThis` of the page. */
export interface Browser {
  document: Page;
  echarts: {
    init(
      element: PageElement | null,
      theme: null,
      options: { renderer: 'svg'; width: number; height: number; ssr?: boolean },
    ): Chart;
  };
  matchMedia(query: string): { readonly matches: boolean; addEventListener(type: string, listener: () => void): void };
  addEventListener(type: string, listener: () => void): void;
  ResizeObserver: new (callback: (entries: { target: PageElement }[]) => void) => Observer;
  IntersectionObserver: new (
    callback: (entries: { target: PageElement; isIntersecting: boolean }[]) => void,
    options: { rootMargin: string },
  ) => Observer;
  Blob: new (parts: string[], options: { type: string }) => object;
  URL: { createObjectURL(blob: object): string; revokeObjectURL(url: string): void };
  setTimeout(work: () => void, ms: number): void;
  /** For scripts that keep a page up to date. */
  eepoReport?: { update(data: unknown): void };
}
