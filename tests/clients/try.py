import asyncio,sys,tempfile,time,traceback
from pathlib import Path
import matrix
t=time.time()
cs=sys.argv[1].split(',') if len(sys.argv)>1 and sys.argv[1]!='-' else None
ss=sys.argv[2].split(',') if len(sys.argv)>2 else None
if cs: matrix.CLIENTS[:]=[c for c in matrix.CLIENTS if any(x in c.title for x in cs)]
folder=Path(tempfile.mkdtemp(prefix='matrix-'))
r=asyncio.run(matrix.play(folder, lambda c,s: not ss or s in ss))
for k,v in r.items(): print(k, repr(v)[:600])
with open(folder/'traces.txt','w') as f:
    for k,v in r.items():
        if isinstance(v,BaseException): print('=====',k,*traceback.format_exception(v),file=f)
print(folder, time.time()-t)
