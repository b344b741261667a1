// Why: the words of the device's own page, English and Chinese; a word that is missing in one does not compile.
// Trusts: nothing. Must never: hold markup.

const en = {
  title: 'Device',
  device: 'Device',
  region: 'Region',
  notEnrolled: 'not enrolled yet',
  connected: 'connected',
  offline: 'offline: serving and recording go on, and are sent later',
  refusedBy: 'refused by the broker',
  version: 'Agent',
  up: 'Running since',
  memory: 'Memory',
  loopDelay: 'Event loop held up',
  models: 'Models',
  noModels: 'No model is assigned to this device.',
  model: 'Model',
  release: 'Release that serves',
  state: 'State',
  why: 'Why',
  nothing: 'nothing',
  ready: 'ready',
  notReady: 'not ready',
  target: 'going to',
  candidate: 'trying',
  lastGood: 'last good',
  rollout: 'rollout',
  golden: 'golden cases passed',
  requests: 'Requests',
  answered: 'answered',
  failed: 'failed',
  waiting: 'waiting',
  latency: 'Latency',
  process: 'Process',
  restarts: 'restarts',
  provider: 'provider',
  of: 'of',
  telemetry: 'Telemetry',
  produced: 'recorded',
  acknowledged: 'stored by the region',
  dropped: 'dropped',
  pending: 'batches on the way',
  telemetryOff: 'nothing is recorded',
  refusals: 'Refusals',
  noRefusals: 'Nothing was refused.',
  attack: 'attack',
  when: 'When',
  code: 'Code',
  detail: 'Detail',
  clock: 'Clock',
  clockSigned: 'signed by the region',
  clockWall: 'the device’s own',
  certificate: 'Certificate until',
  updated: 'As of',
  states: {
    idle: 'at rest',
    offered: 'checking the offer',
    fetching: 'fetching',
    verifying: 'verifying',
    staging: 'loading',
    probing: 'running golden cases',
    shadowing: 'comparing on live inputs',
    switching: 'switching',
    soaking: 'being watched',
    committed: 'committed',
    'rolling-back': 'rolling back',
  },
};

export type PageText = typeof en;

const zh: PageText = {
  title: '设备',
  device: '设备',
  region: '区域',
  notEnrolled: '尚未注册',
  connected: '已连接',
  offline: '离线：推理与记录照常进行，稍后再同步',
  refusedBy: '被消息代理拒绝',
  version: '代理程序',
  up: '启动于',
  memory: '内存',
  loopDelay: '事件循环阻塞',
  models: '模型',
  noModels: '此设备未分配任何模型。',
  model: '模型',
  release: '当前提供服务的版本',
  state: '状态',
  why: '原因',
  nothing: '无',
  ready: '就绪',
  notReady: '未就绪',
  target: '目标版本',
  candidate: '正在试用',
  lastGood: '最近可用版本',
  rollout: '发布任务',
  golden: '个基准用例通过',
  requests: '请求',
  answered: '已应答',
  failed: '失败',
  waiting: '排队中',
  latency: '延迟',
  process: '进程',
  restarts: '次重启',
  provider: '执行后端',
  of: '/',
  telemetry: '遥测',
  produced: '已记录',
  acknowledged: '区域已保存',
  dropped: '已丢弃',
  pending: '批正在发送',
  telemetryOff: '未在记录',
  refusals: '拒绝记录',
  noRefusals: '没有任何拒绝。',
  attack: '攻击',
  when: '时间',
  code: '代码',
  detail: '详情',
  clock: '时钟',
  clockSigned: '由区域签名',
  clockWall: '设备自身',
  certificate: '证书有效期至',
  updated: '截至',
  states: {
    idle: '空闲',
    offered: '检查更新',
    fetching: '下载中',
    verifying: '校验中',
    staging: '加载中',
    probing: '运行基准用例',
    shadowing: '用实时输入比对',
    switching: '切换中',
    soaking: '观察期',
    committed: '已确认',
    'rolling-back': '回滚中',
  },
};

export const pageLanguages = { en, zh } as const;
export type PageLanguage = keyof typeof pageLanguages;

/** `?lang=` first, then the browser's wishes in their order; English otherwise. */
export function pageLanguage(query: string | null, acceptLanguage: string | undefined): PageLanguage {
  const known = (tag: string): PageLanguage | null => {
    const primary = tag.trim().toLowerCase().split('-', 1)[0];
    return primary === 'en' || primary === 'zh' ? primary : null;
  };
  if (query !== null) {
    const asked = known(query);
    if (asked !== null) return asked;
  }
  const wishes = (acceptLanguage ?? '')
    .split(',')
    .slice(0, 20)
    .map((part) => {
      const [tag = '', ...rest] = part.split(';');
      const quality = Number(/q=([\d.]+)/.exec(rest.join(';'))?.[1] ?? 1);
      return { language: known(tag), quality: Number.isFinite(quality) ? quality : 0 };
    })
    .filter((wish) => wish.quality > 0)
    .sort((a, b) => b.quality - a.quality);
  return wishes.find((wish) => wish.language !== null)?.language ?? 'en';
}
