/* Browsers start no worker for a page that was opened from a disk. This one runs the script in a hidden frame instead,
 * which is enough for the search: messages there and back, scripts loaded one after the other. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const base = new URL(url, document.baseURI);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inner = frame.contentWindow;
      const load = (source) => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        script.src = new URL(source, base);
        script.onload = done;
        script.onerror = () => failed(new Error(`expected a script, got nothing at ${script.src}`));
        inner.document.body.append(script);
      });
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...sources) => sources.reduce((ready, one) => ready.then(() => load(one)), Promise.resolve());
      this.receive = (data) => inner.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = load(base);
    }
    postMessage(data) {
      this.ready.then(() => this.receive(data));
    }
    terminate() {}
  };
}
