/** How a report looks. */
export const STYLE = `
:root{color-scheme:light dark;--ink:#22262c;--soft:#626973;--line:#e3e6ea;--paper:#fff;--card:#fafbfc;--good:#0a7a5c;--bad:#a8554a;--accent:#0b62a8}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#9aa1ab;--line:#2c3138;--paper:#16181c;--card:#1b1e23;--good:#4fcfa8;--bad:#e69a8e;--accent:#5cb0f2}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.5rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header{max-width:1160px;margin:0 auto;padding:0 24px}
header{padding-top:40px}
h1{font-size:1.75rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .7rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;letter-spacing:-.01em;margin:3rem 0 1rem}
h3{font-size:.95rem;font-weight:600;margin:0 0 .5rem}
h4{font-size:.85rem;margin:0 0 .4rem;display:flex;flex-wrap:wrap;gap:0 .6em;align-items:baseline}
h4 span,.paper{font-weight:400;color:var(--soft);font-size:.8rem}
.paper{white-space:nowrap}
.note,figcaption{color:var(--soft);font-size:.85rem;margin:.5rem 0}
a{color:var(--accent)}
nav{position:sticky;top:0;z-index:5;background:var(--paper);border-bottom:1px solid var(--line)}
nav>div{max-width:1160px;margin:0 auto;padding:0 24px;display:flex;align-items:center;gap:1.25rem;min-height:2.9rem}
#contents{display:flex;gap:1.1rem;overflow-x:auto;flex:1;scrollbar-width:none;min-width:0}
#contents-figures{display:contents}
#contents a{color:var(--soft);text-decoration:none;font-size:.88rem;white-space:nowrap;padding:.7rem 0}
#contents a:hover{color:var(--ink)}
nav label{display:flex;align-items:center;gap:.5rem;font-size:.85rem;color:var(--soft);white-space:nowrap}
nav input{width:90px;accent-color:var(--accent)}
.common{color:var(--soft);font-size:.9rem;margin:-.2rem 0 .6rem}
.runs{list-style:none;padding:0;margin:0 0 1.5rem;display:grid;gap:.45rem}
.runs li{display:flex;flex-wrap:wrap;gap:.15rem .8rem;align-items:baseline;font-size:.9rem}
.runs span{color:var(--soft)}
.dot{display:inline-block;width:.65em;height:.65em;border-radius:50%;background:var(--run,var(--soft));margin-right:.5em}
.chip{font:inherit;font-weight:600;color:var(--ink);background:none;border:0;padding:.1rem 0;cursor:pointer;text-align:left;overflow-wrap:anywhere}
.chip .dot{background:var(--run)}
.chip[aria-pressed=false]{opacity:.4;text-decoration:line-through}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.88rem}
th,td{padding:.32rem 1.4rem .32rem 0;text-align:left;font-weight:400;vertical-align:baseline}
thead th{font-weight:600;border-bottom:1px solid var(--line);vertical-align:bottom}
.numbers thead th+th{min-width:6.4rem;max-width:16rem;overflow-wrap:anywhere}
tbody tr+tr>*{border-top:1px solid var(--line)}
.numbers td{white-space:nowrap}
.scroll .numbers th:first-child{position:sticky;left:0;background:var(--paper);z-index:1}
.groups{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(19rem,100%),1fr));gap:0 3rem;align-items:start}
.groups table{width:100%}
.groups td{text-align:right;padding-right:0}
.numbers th:first-child,.config th:first-child{color:var(--soft)}
.config td,.config th{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.8rem;overflow-wrap:anywhere;max-width:26rem}
.config td{min-width:7rem}
.numbers .group th{padding-top:1.1rem;font-weight:600;color:var(--ink);border-top:0}
.was{color:var(--soft);font-weight:400}
.figures{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:2.6rem 2.4rem}
figure{margin:0;min-width:0}
.plot{width:100%}
figcaption{margin:.35rem 0 .2rem;max-width:60ch}
.tools{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;font-size:.8rem;color:var(--soft)}
.tools details[open]{flex-basis:100%;order:3}
.tools .scroll{max-height:22rem;overflow:auto}
summary{cursor:pointer}
summary:hover,.tool:hover{color:var(--ink)}
.tool{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
details>summary{color:var(--soft);font-size:.88rem;margin:.6rem 0}
.tools details>summary{font-size:.8rem;margin:0}
.run-samples>summary{color:var(--ink);font-weight:600;font-size:.95rem}
.prompt{border-top:1px solid var(--line);padding:1rem 0 1.2rem}
.question{font:600 .88rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 .8rem;max-height:16rem;overflow-y:auto}
.stages{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem 2.4rem}
.stage ul{list-style:none;margin:0;padding:0}
.stage li{display:flex;gap:.6em;align-items:baseline;font-size:.85rem;padding:.12rem 0}
code{font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
.wrong code{color:var(--soft)}
.stage details{min-width:0}
.stage details>summary{margin:0;list-style:none;color:inherit}
.stage details>summary::after{content:" more";color:var(--accent);font-size:.78rem;white-space:nowrap}
.stage details[open]>summary code{display:none}
.stage details[open]>summary::after{content:"less"}
.stage li:has(details){padding:.3rem 0}
.right .mark{color:var(--good)}.wrong .mark{color:var(--bad)}
.tags{display:flex;gap:.6em;white-space:nowrap;color:var(--soft);font-size:.78rem}
.new{color:var(--good)}
footer{margin:4rem 0 2.5rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.82rem}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media (max-width:760px){
main,header{padding:0 16px}header{padding-top:24px}h1{font-size:1.4rem}h2{margin-top:2.4rem}
nav>div{padding:0 16px;gap:.8rem}nav input{width:72px}nav label span{display:none}
#contents{padding-right:1.5rem;mask-image:linear-gradient(90deg,#000 calc(100% - 1.5rem),transparent)}
.figures{grid-template-columns:minmax(0,1fr);gap:2.2rem}
.stages{grid-template-columns:minmax(0,1fr)}
.chip,.tool,.tools summary{padding:.35rem 0}
.scroll .numbers .error{display:none}
th,td{padding-right:.9rem}table{font-size:.82rem}
}
@media print{nav,.tools{display:none}body{font-size:11pt}main,header{max-width:none;padding:0}figure,.prompt{break-inside:avoid}h2,h3{break-after:avoid}}
`.trim();
